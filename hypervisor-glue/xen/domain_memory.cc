#include "hypervisor-glue/xen/domain_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// The most that Xen tells the types of in one call.
constexpr uint64_t kTypesACall = 1024;
// Frames mapped in one call: 16 MiB of guest memory, 32 KiB of frame numbers.
constexpr uint64_t kFramesACall = 4096;
constexpr uint64_t kLargePage = 512;  // frames
constexpr unsigned kLargePageOrder = 9;

bool HoldsMemory(xen_pfn_t type) {
  switch (type & XEN_DOMCTL_PFINFO_LTAB_MASK) {
    case XEN_DOMCTL_PFINFO_XTAB:
    case XEN_DOMCTL_PFINFO_XALLOC:
    case XEN_DOMCTL_PFINFO_BROKEN:
      return false;
    default:
      return true;
  }
}

absl::Status MapRun(const XenControl& xen, const XenDomain& domain, std::byte* address,
                    PageRun frames, int protection) {
  std::vector<xen_pfn_t> numbers;
  std::vector<int> errors;
  while (frames.count > 0) {
    const uint64_t count = std::min(frames.count, kFramesACall);
    numbers.resize(count);
    errors.assign(count, 0);
    std::iota(numbers.begin(), numbers.end(), frames.first);
    if (xenforeignmemory_map2(xen.memory(), domain.id, address, protection, MAP_FIXED, count,
                              numbers.data(), errors.data()) == nullptr) {
      return XenControl::Error(domain,
                               fmt::format("cannot map its memory from frame {:#x}", frames.first));
    }
    for (uint64_t i = 0; i < count; ++i) {
      if (errors[i] == 0) continue;
      return ErrnoStatus(
          errors[i] < 0 ? -errors[i] : errors[i],
          fmt::format("domain {}: cannot map its frame {:#x}", domain.name, numbers[i]));
    }
    address += count << kPageShift;
    frames.first += count;
    frames.count -= count;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PageRuns> FindMemory(const XenControl& xen, const XenDomain& domain, uint64_t last) {
  PageRuns ram;
  std::array<xen_pfn_t, kTypesACall> types{};
  for (uint64_t first = 0; first < last; first += kTypesACall) {
    const uint64_t count = std::min(kTypesACall, last - first);
    std::iota(types.begin(), types.begin() + static_cast<int64_t>(count), first);
    if (xc_get_pfn_type_batch(xen.xc(), domain.id, static_cast<unsigned int>(count),
                              types.data()) != 0) {
      return XenControl::Error(domain, "Xen does not say what its frames are");
    }
    for (uint64_t i = 0; i < count; ++i) {
      if (HoldsMemory(types[i])) AppendRun(ram, {.first = first + i, .count = 1});
    }
  }
  return ram;
}

absl::Status PopulateMemory(const XenControl& xen, const XenDomain& domain, const PageRuns& ram) {
  std::vector<xen_pfn_t> extents;
  const auto populate = [&](PageRun run, uint64_t step, unsigned order) {
    extents.clear();
    for (uint64_t at = 0; at < run.count; at += step) extents.push_back(run.first + at);
    return xc_domain_populate_physmap_exact(xen.xc(), domain.id, extents.size(), order, 0,
                                            extents.data()) == 0;
  };
  for (PageRun run : ram) {
    while (run.count > 0) {
      PageRun part = run;
      const bool aligned = run.first % kLargePage == 0 && run.count >= kLargePage;
      // One large page, or up to the next one: a failed call may have populated a part of it.
      part.count = aligned ? kLargePage : std::min(run.count, kLargePage - run.first % kLargePage);
      // Free memory may be too fragmented for large pages.
      if (!(aligned && populate(part, kLargePage, kLargePageOrder)) && !populate(part, 1, 0)) {
        return XenControl::Error(domain,
                                 fmt::format("Xen gives it no memory for frame {:#x}", part.first));
      }
      run.first += part.count;
      run.count -= part.count;
    }
  }
  return absl::OkStatus();
}

DomainMemory& DomainMemory::operator=(DomainMemory&& other) noexcept {
  std::swap(ranges_, other.ranges_);
  std::swap(regions_, other.regions_);
  return *this;
}

DomainMemory::~DomainMemory() {
  for (const MappedRegion& region : regions_) {
    ::munmap(region.address, region.description.size.value());
  }
}

absl::StatusOr<DomainMemory> DomainMemory::Map(const XenControl& xen, const XenDomain& domain,
                                               std::vector<FrameRange> ranges, bool writable) {
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  DomainMemory memory;
  memory.ranges_ = std::move(ranges);
  for (const FrameRange& range : memory.ranges_) {
    const RegionDescription description = DescribeRange(range);
    void* place = ::mmap(nullptr, description.size.value(), protection,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED) return ErrnoStatus(errno, "no address space for a domain's memory");
    auto* address = static_cast<std::byte*>(place);
    memory.regions_.push_back(
        {.description = description, .address = address, .fd = -1, .can_register = false});
    for (const PageRun& run : range.ram) {
      RETURN_IF_ERROR(MapRun(xen, domain, address + (run.first << kPageShift),
                             {.first = range.first + run.first, .count = run.count}, protection));
    }
  }
  return memory;
}

void DomainMemory::PopulatedRuns(const Slice& slice, PageRuns& runs) const {
  const PageRun& wanted = slice.pages;
  for (const PageRun& run : ranges_[slice.region].ram) {
    const uint64_t first = std::max(run.first, wanted.first);
    const uint64_t end = std::min(run.end(), wanted.end());
    if (first < end) AppendRun(runs, {.first = first, .count = end - first});
  }
}

void DomainMemory::Clear() const {
  for (size_t i = 0; i < regions_.size(); ++i) {
    for (const PageRun& run : ranges_[i].ram) {
      std::memset(regions_[i].address + (run.first << kPageShift), 0, run.count << kPageShift);
    }
  }
}

}  // namespace ramferry
