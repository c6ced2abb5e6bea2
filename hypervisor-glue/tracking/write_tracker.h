// Sees which pages of some address ranges of a process are written, without that process's help.
//
// Two ways of the kernel's, behind one interface; ChooseTracking says which one a host has:
//
//   uffd_tracker.h        Linux 6.7: any part at any time, while the process runs
//   soft_dirty_tracker.h  older kernels: all of it at once, while the process stands still
//
//   RETURN_IF_ERROR(tracker->Gather());                      // where needs_gathering()
//   RETURN_IF_ERROR(tracker->Collect(0, {0, 16384}, runs));  // pages 0..16383 of range 0
//
// Collect, Peek and Gather are thread-safe, Collect and Peek for page ranges that do not overlap.
// Destroying a tracker ends the tracking.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/page_run.h"
#include "hypervisor-glue/tracking/memory_file.h"

namespace ramferry {

struct TrackedRange {
  uint64_t address = 0;              // in the tracked process; page-aligned
  uint64_t length = 0;               // bytes
  const MemoryFile* file = nullptr;  // the same memory; soft-dirty tracking needs it
};

class WriteTracker {
 public:
  virtual ~WriteTracker() = default;

  // Read-and-clear: appends the runs of `pages` of range `range` written since the last Collect.
  // All pages count as written at first.
  [[nodiscard]] virtual absl::Status Collect(size_t range, PageRun pages, PageRuns& runs) = 0;
  // Like Collect, without clearing.
  [[nodiscard]] virtual absl::Status Peek(size_t range, PageRun pages, PageRuns& runs) = 0;

  // True: Collect knows only of writes before the last Gather.
  [[nodiscard]] virtual bool needs_gathering() const { return false; }
  // Takes all writes so far for Collect. Nothing may write the tracked memory meanwhile: a write
  // during this call may be lost.
  [[nodiscard]] virtual absl::Status Gather() { return absl::OkStatus(); }
  // The same where no other will follow: cheaper. A later one would find these writes again.
  [[nodiscard]] virtual absl::Status GatherLast() { return absl::OkStatus(); }
};

enum class TrackingMethod { kWriteProtect, kSoftDirty };

struct Tracking {
  TrackingMethod method = TrackingMethod::kWriteProtect;
  std::string description;  // what it is, why it was chosen, and what it costs: for people
};

// The best that the running kernel has, or what it lacks for any.
[[nodiscard]] absl::StatusOr<Tracking> ChooseTracking();

}  // namespace ramferry
