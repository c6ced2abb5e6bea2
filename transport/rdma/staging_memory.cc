#include "transport/rdma/staging_memory.h"

#include <linux/mman.h>
#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "base/populate.h"
#include "base/status.h"
#include "transport/rdma/needs.h"

namespace ramferry::rdma {
namespace {

// 2 MiB whatever the system's default is: of 1 GiB pages the ring would take a whole one, and
// munmap(2) of less than that is refused.
constexpr int kHugePages = MAP_HUGETLB | MAP_HUGE_2MB;
static_assert(kStagingBytes % MiB(2).value() == 0);

std::byte* MapAnonymous(int flags) {
  void* const bytes = ::mmap(nullptr, kStagingBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  return bytes == MAP_FAILED ? nullptr : static_cast<std::byte*>(bytes);
}

}  // namespace

StagingMemory& StagingMemory::operator=(StagingMemory&& other) noexcept {
  if (this != &other) {
    Unmap();
    bytes_ = std::exchange(other.bytes_, nullptr);
    huge_ = other.huge_;
  }
  return *this;
}

void StagingMemory::Unmap() {
  if (bytes_ != nullptr) ::munmap(std::exchange(bytes_, nullptr), kStagingBytes);
}

absl::StatusOr<StagingMemory> StagingMemory::Map() {
  StagingMemory memory;
  memory.bytes_ = MapAnonymous(kHugePages);
  // Promised is not had: a control group or the CPUs' nodes may have none, and the first write
  // would end the process.
  memory.huge_ = memory.bytes_ != nullptr && Populate(memory.bytes_, kStagingBytes).ok();
  if (memory.huge_) return memory;
  memory.Unmap();
  memory.bytes_ = MapAnonymous(0);
  if (memory.bytes_ == nullptr) return ErrnoStatus(errno, "cannot map the RDMA staging ring");
  return memory;
}

}  // namespace ramferry::rdma
