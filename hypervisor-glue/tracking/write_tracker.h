// Sees which pages of some address ranges of a process are written, without that process's help.
//
// A userfaultfd that belongs to the process, in asynchronous write-protect mode, makes the kernel
// note the first write to each page by itself; PAGEMAP_SCAN reads the notes and write-protects
// again in one call (Linux 6.7). The tracked threads see one minor fault a page and round, nothing
// else.
//
//   ASSIGN_OR_RETURN(auto tracker, WriteTracker::Create(pid, std::move(uffd), ranges));
//   RETURN_IF_ERROR(tracker->Collect(0, {0, 16384}, runs));   // pages 0..16383 of ranges[0]
//
// Collect and Peek are thread-safe, for page ranges that do not overlap. Destroying the tracker
// ends the tracking: the kernel drops all of it with the last reference to the userfaultfd, so that
// even a killed tracker leaves the process as it was. Write protection never blocks the process.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/page_run.h"
#include "base/unique_fd.h"

namespace ramferry {

struct TrackedRange {
  uint64_t address = 0;  // in the tracked process; page-aligned
  uint64_t length = 0;   // bytes
};

// What the running kernel lacks for WriteTracker, as a sentence with what to do; OK if nothing.
[[nodiscard]] absl::Status CheckKernelTracksWrites();

// A userfaultfd of this process, for guests that live in it (the synthetic guest).
[[nodiscard]] absl::StatusOr<UniqueFd> OpenOwnUserfaultfd();

class WriteTracker {
 public:
  // `uffd` was opened by process `pid` and not used yet. All pages count as written at first.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<WriteTracker>> Create(
      pid_t pid, UniqueFd uffd, std::vector<TrackedRange> ranges);

  // Read-and-clear: appends the runs of `pages` of range `range` written since the last Collect.
  [[nodiscard]] absl::Status Collect(size_t range, PageRun pages, PageRuns& runs) {
    return Scan(range, pages, true, runs);
  }
  [[nodiscard]] absl::Status Peek(size_t range, PageRun pages, PageRuns& runs) {
    return Scan(range, pages, false, runs);
  }

 private:
  WriteTracker(UniqueFd uffd, UniqueFd pagemap, std::vector<TrackedRange> ranges);
  [[nodiscard]] absl::Status Scan(size_t range, PageRun pages, bool clear, PageRuns& runs);

  UniqueFd uffd_;
  UniqueFd pagemap_;
  std::vector<TrackedRange> ranges_;
};

}  // namespace ramferry
