// The write tracker for kernels before 6.7: soft-dirty bits, a round at a time.
//
// Writing "4" to /proc/PID/clear_refs write-protects all memory of the process; the first write to
// a page sets bit 55 of its entry in /proc/PID/pagemap (Linux,
// Documentation/admin-guide/mm/soft-dirty.rst). There is no reading and clearing in one step, and
// clearing is for the whole process, so:
//
//   * A write between reading and clearing would be lost. Gather reads, then clears, and is called
//     while the process writes nothing (QEMU: QMP "stop", which drains its I/O as well).
//   * What Gather finds is kept in a bitmap of ours until Collect takes it, slice by slice.
//
// What the kernel forgets, and what is done about it (mm/rmap.c, mm/huge_memory.c,
// mm/khugepaged.c, fs/proc/task_mmu.c):
//
//   * A page of a shared file that is unmapped to be swapped out loses its bit: the kernel drops
//     the whole entry. A page that is mapped but was never reported is therefore reported, as is
//     one that is in the file but not mapped; and pages that were reported cannot be swapped out,
//     because our own mapping of them is locked as the pages are read (MLOCK_ONFAULT).
//   * Splitting or collapsing a transparent huge page of a file drops entries as well:
//     CheckSoftDirtyMemory refuses memory that may have such pages.
//   * hugetlbfs has no soft-dirty bits: refused.
//   * KVM's own page tables are dropped by clearing (an MMU notifier spans it), so that the guest's
//     next write goes through the process's page tables and is seen.
//   * Memory given back (a hole punched) that was reported before is reported once: it is zeros
//   now.
//
// The bits belong to the process: two users of them (CRIU, another tracker) spoil each other's.
// When the tracker goes, nothing is left but one more minor fault for each page at its next write.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "hypervisor-glue/tracking/write_tracker.h"

namespace ramferry {

// What the running kernel lacks for SoftDirtyTracker; OK if nothing. Changes nothing.
[[nodiscard]] absl::Status CheckSoftDirtyTracking();

// Whether all writes to this memory of process `pid` would be seen: FailedPrecondition says which
// part is hugetlbfs or may have transparent huge pages, and what to do.
[[nodiscard]] absl::Status CheckSoftDirtyMemory(pid_t pid, std::span<const TrackedRange> ranges);

// The page tables of a process, so that a test can play one.
class SoftDirtyPages {
 public:
  virtual ~SoftDirtyPages() = default;
  // The entries of /proc/PID/pagemap from the page at `address` on.
  [[nodiscard]] virtual absl::Status Read(uint64_t address, std::span<uint64_t> entries) = 0;
  // Clears all soft-dirty bits of the process.
  [[nodiscard]] virtual absl::Status Clear() = 0;

  static constexpr uint64_t kSoftDirty = uint64_t{1} << 55;
  static constexpr uint64_t kSwapped = uint64_t{1} << 62;  // also: being moved to another page
  static constexpr uint64_t kPresent = uint64_t{1} << 63;
};

class SoftDirtyTracker : public WriteTracker {
 public:
  // Every range has its file, which must outlive the tracker.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<SoftDirtyTracker>> Create(
      pid_t pid, const std::vector<TrackedRange>& ranges);
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<SoftDirtyTracker>> Create(
      std::unique_ptr<SoftDirtyPages> pages, const std::vector<TrackedRange>& ranges);
  ~SoftDirtyTracker() override;

  [[nodiscard]] absl::Status Collect(size_t range, PageRun pages, PageRuns& runs) override;
  [[nodiscard]] absl::Status Peek(size_t range, PageRun pages, PageRuns& runs) override;
  [[nodiscard]] bool needs_gathering() const override { return true; }
  [[nodiscard]] absl::Status Gather() override;
  [[nodiscard]] absl::Status GatherLast() override;

 private:
  using Bits = std::vector<std::atomic<uint64_t>>;  // one a page
  struct Range {
    TrackedRange memory;
    Bits written;   // and not collected
    Bits reported;  // holds data, as far as Gather knows: it was written at least once
    bool locked = false;
  };

  explicit SoftDirtyTracker(std::unique_ptr<SoftDirtyPages> pages) : pages_(std::move(pages)) {}
  [[nodiscard]] absl::Status GatherRange(Range& range);
  [[nodiscard]] static absl::Status GatherUnmapped(Range& range, PageRun unmapped);

  std::unique_ptr<SoftDirtyPages> pages_;
  std::vector<Range> ranges_;
};

}  // namespace ramferry
