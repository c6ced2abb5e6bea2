// The write tracker of Linux 6.7 and newer: collects any part of the memory while the process runs.
//
// A userfaultfd that belongs to the process, in asynchronous write-protect mode, makes the kernel
// note the first write to each page by itself; PAGEMAP_SCAN reads the notes and write-protects
// again in one call. The tracked threads see one minor fault a page and round, nothing else.
//
//   ASSIGN_OR_RETURN(auto tracker, UffdTracker::Create(pid, std::move(uffd), ranges));
//
// Destroying the tracker ends the tracking: the kernel drops all of it with the last reference to
// the userfaultfd, so that even a killed tracker leaves the process as it was. Write protection
// never blocks the process.
#pragma once

#include <sys/types.h>

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "hypervisor-glue/tracking/write_tracker.h"

namespace ramferry {

// What the running kernel lacks for UffdTracker, as a sentence with what to do; OK if nothing.
[[nodiscard]] absl::Status CheckUffdTracking();

// A userfaultfd of this process, for guests that live in it (the synthetic guest).
[[nodiscard]] absl::StatusOr<UniqueFd> OpenOwnUserfaultfd();

class UffdTracker : public WriteTracker {
 public:
  // `uffd` was opened by process `pid` and not used yet.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<UffdTracker>> Create(
      pid_t pid, UniqueFd uffd, std::vector<TrackedRange> ranges);

  [[nodiscard]] absl::Status Collect(size_t range, PageRun pages, PageRuns& runs) override {
    return Scan(range, pages, true, runs);
  }
  [[nodiscard]] absl::Status Peek(size_t range, PageRun pages, PageRuns& runs) override {
    return Scan(range, pages, false, runs);
  }

 private:
  UffdTracker(UniqueFd uffd, UniqueFd pagemap, std::vector<TrackedRange> ranges);
  [[nodiscard]] absl::Status Scan(size_t range, PageRun pages, bool clear, PageRuns& runs);

  UniqueFd uffd_;
  UniqueFd pagemap_;
  std::vector<TrackedRange> ranges_;
};

}  // namespace ramferry
