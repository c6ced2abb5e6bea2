#include "hypervisor-glue/tracking/write_tracker.h"

#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/tracking/soft_dirty_tracker.h"
#include "hypervisor-glue/tracking/uffd_tracker.h"

namespace ramferry {

absl::StatusOr<Tracking> ChooseTracking() {
  const absl::Status best = CheckUffdTracking();
  if (best.ok()) {
    return Tracking{
        TrackingMethod::kWriteProtect,
        "userfaultfd WP_ASYNC and PAGEMAP_SCAN: a minor fault for each page written, once "
        "a round; the guest never waits"};
  }
  const absl::Status second = CheckSoftDirtyTracking();
  if (second.ok()) {
    return Tracking{
        TrackingMethod::kSoftDirty,
        fmt::format(
            "soft-dirty bits, because {}. Each round stops the guest for about 20 ms for each "
            "GiB that it uses, and makes all of QEMU's pages fault once more (under KVM for "
            "reading, too). No hugetlbfs, no transparent huge pages in guest memory",
            Message(best))};
  }
  return absl::FailedPreconditionError(fmt::format("{}; {}", Message(best), Message(second)));
}

}  // namespace ramferry
