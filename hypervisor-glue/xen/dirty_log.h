// Xen's log-dirty mode of one domain: which frames its guest wrote.
//
// Works for domains with hardware-assisted paging (PVH, HVM). Xen reads the log as a whole only;
// see sliced_bitmap.h. A process that dies leaves the mode on: Disable of another one ends it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/page_run.h"
#include "hypervisor-glue/xen/sliced_bitmap.h"
#include "hypervisor-glue/xen/xen_control.h"

namespace ramferry {

class DirtyLog {
 public:
  // Switches the mode on for frames below `frames`; all of `ram` counts as dirty.
  // FailedPrecondition: it is on already (another migration), or this Xen cannot do it.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<DirtyLog>> Enable(const XenControl& xen,
                                                                        const XenDomain& domain,
                                                                        uint64_t frames,
                                                                        const PageRuns& ram);
  [[nodiscard]] static absl::Status Disable(const XenControl& xen, const XenDomain& domain);
  // Does not switch it off: Disable does.
  ~DirtyLog();
  DirtyLog(const DirtyLog&) = delete;
  DirtyLog& operator=(const DirtyLog&) = delete;

  // Appends dirty runs of `frames`, counted from `base`. Thread-safe. A peek may be some
  // milliseconds old.
  [[nodiscard]] absl::Status Collect(PageRun frames, uint64_t base, PageRuns& runs);
  [[nodiscard]] absl::Status Peek(PageRun frames, uint64_t base, PageRuns& runs);
  // The guest stands still: the next Collect sees everything that it wrote.
  void GuestStopped();

 private:
  DirtyLog(const XenControl& xen, XenDomain domain, uint64_t frames);
  [[nodiscard]] absl::Status Read(unsigned operation, unsigned mode, std::span<uint64_t> words);

  const XenControl& xen_;
  const XenDomain domain_;
  const uint64_t frames_;
  xc_hypercall_buffer_t buffer_{};
  void* log_ = nullptr;  // in the buffer, where Xen can write
  int buffer_pages_ = 0;
  std::mutex mutex_;  // of the buffer
  std::atomic<bool> stopped_ = false;
  std::atomic<Deadline> peeked_at_ = Deadline{};
  SlicedBitmap collected_;
  SlicedBitmap peeked_;
};

}  // namespace ramferry
