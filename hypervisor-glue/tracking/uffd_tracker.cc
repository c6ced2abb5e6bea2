#include "hypervisor-glue/tracking/uffd_tracker.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/tracking/kernel_abi.h"

namespace ramferry {
namespace {

constexpr uint64_t kFeatures =
    kernel::kFeatureWpAsync | kernel::kFeatureWpUnpopulated | kernel::kFeatureWpHugetlbfsShmem;
// Regions a PAGEMAP_SCAN call returns at most: 24 KiB of stack, few calls even when every other
// page is dirty.
constexpr size_t kRegionsPerScan = 1024;

absl::Status EnableAsyncWriteProtect(int uffd) {
  uffdio_api api{.api = UFFD_API, .features = kFeatures};
  if (::ioctl(uffd, UFFDIO_API, &api) == 0) return absl::OkStatus();
  if (errno == EINVAL) {
    return absl::FailedPreconditionError(
        "this kernel cannot note writes asynchronously (userfaultfd WP_ASYNC): Linux 6.7 or newer "
        "is needed");
  }
  return ErrnoStatus(errno, "cannot set up the userfaultfd");
}

}  // namespace

absl::StatusOr<UniqueFd> OpenOwnUserfaultfd() {
  UniqueFd uffd(
      static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)));
  if (!uffd.valid()) return ErrnoStatus(errno, "cannot open a userfaultfd");
  return uffd;
}

absl::Status CheckUffdTracking() {
  ASSIGN_OR_RETURN(UniqueFd uffd, OpenOwnUserfaultfd());
  RETURN_IF_ERROR(EnableAsyncWriteProtect(uffd.get()));
  const UniqueFd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!pagemap.valid()) return ErrnoStatus(errno, "cannot open /proc/self/pagemap");
  kernel::PagemapScanArg scan{.size = sizeof scan};
  if (::ioctl(pagemap.get(), kernel::kPagemapScan, &scan) < 0 && errno == ENOTTY) {
    return absl::FailedPreconditionError(
        "this kernel has no PAGEMAP_SCAN: Linux 6.7 or newer is needed");
  }
  return absl::OkStatus();
}

UffdTracker::UffdTracker(UniqueFd uffd, UniqueFd pagemap, std::vector<TrackedRange> ranges)
    : uffd_(std::move(uffd)), pagemap_(std::move(pagemap)), ranges_(std::move(ranges)) {}

absl::StatusOr<std::unique_ptr<UffdTracker>> UffdTracker::Create(pid_t pid, UniqueFd uffd,
                                                                 std::vector<TrackedRange> ranges) {
  RETURN_IF_ERROR(EnableAsyncWriteProtect(uffd.get()));
  const std::string path = fmt::format("/proc/{}/pagemap", pid);
  UniqueFd pagemap(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!pagemap.valid()) {
    return ErrnoStatus(errno, fmt::format("cannot open {} (root or CAP_SYS_PTRACE needed)", path));
  }
  for (const TrackedRange& range : ranges) {
    uffdio_register registration{.range = {.start = range.address, .len = range.length},
                                 .mode = UFFDIO_REGISTER_MODE_WP};
    if (::ioctl(uffd.get(), UFFDIO_REGISTER, &registration) == 0) continue;
    if (errno == EBUSY) {
      return absl::FailedPreconditionError(fmt::format(
          "process {} already has a userfaultfd on its guest memory (post-copy, or another "
          "migration, is under way): let that end first",
          pid));
    }
    return ErrnoStatus(errno, fmt::format("cannot track writes of process {} to {} MiB at {:#x}",
                                          pid, range.length >> 20, range.address));
  }
  return std::unique_ptr<UffdTracker>(
      new UffdTracker(std::move(uffd), std::move(pagemap), std::move(ranges)));
}

absl::Status UffdTracker::Scan(size_t range, PageRun pages, bool clear, PageRuns& runs) {
  const uint64_t base = ranges_[range].address;
  std::array<kernel::PageRegion, kRegionsPerScan> found;
  kernel::PagemapScanArg scan{
      .size = sizeof scan,
      .flags = kernel::kScanCheckAsync | (clear ? kernel::kScanWriteProtectMatching : 0),
      .start = base + (pages.first << kPageShift),
      .end = base + (pages.end() << kPageShift),
      .vec = reinterpret_cast<uintptr_t>(found.data()),
      .vec_len = found.size(),
      .category_mask = kernel::kPageIsWritten,
      .return_mask = kernel::kPageIsWritten,
  };
  while (scan.start < scan.end) {
    const int count = ::ioctl(pagemap_.get(), kernel::kPagemapScan, &scan);
    if (count < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, fmt::format("cannot read the dirty pages at {:#x}", scan.start));
    }
    for (int i = 0; i < count; ++i) {
      AppendRun(runs, {(found[i].start - base) >> kPageShift,
                       (found[i].end - found[i].start) >> kPageShift});
    }
    if (scan.walk_end <= scan.start) {
      return absl::InternalError(
          fmt::format("PAGEMAP_SCAN does not advance at {:#x}: the guest's memory is no longer "
                      "mapped as it was",
                      scan.start));
    }
    scan.start = scan.walk_end;
  }
  return absl::OkStatus();
}

}  // namespace ramferry
