// What both ends say about a guest's memory: regions, and where they are in this process.
//
// A region is a piece of guest memory with one name, one backing page size and one NUMA node.
// Source and destination number regions alike (RegionId is the index in the list); a region's
// offset is the offset in its backing, not a guest-physical address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/page_run.h"
#include "base/units.h"

namespace ramferry {

struct RegionDescription {
  std::string name;                      // unique within the guest, e.g. QEMU's backend id
  ByteCount size;                        // a multiple of backing_page_size
  ByteCount backing_page_size = KiB(4);  // 4 KiB, or the huge page size behind it
  int numa_node = -1;                    // guest NUMA node it belongs to; -1: none stated
  ByteCount populated;                   // bytes that hold data on the source now; 0: unknown

  friend bool operator==(const RegionDescription&, const RegionDescription&) = default;
};

// A region mapped into this process. The object that hands it out owns the mapping and the fd; both
// stay valid as long as that object does.
struct MappedRegion {
  RegionDescription description;
  std::byte* address = nullptr;  // source: mapped read-only
  int fd = -1;                   // the backing file at offset 0 of the region; -1: none
  // May be registered with an RDMA device: can be pinned, and what is pinned stays this memory.
  bool can_register = true;

  [[nodiscard]] uint64_t pages() const { return PagesCovering(description.size).value(); }
  // pwrite(2) works on the backing (tmpfs and other page-cache files; not hugetlbfs).
  [[nodiscard]] bool can_pwrite() const {
    return fd >= 0 && description.backing_page_size == KiB(4);
  }
};

[[nodiscard]] inline PageCount PagesIn(std::span<const MappedRegion> regions) {
  uint64_t pages = 0;
  for (const MappedRegion& region : regions) pages += region.pages();
  return PageCount(pages);
}

}  // namespace ramferry
