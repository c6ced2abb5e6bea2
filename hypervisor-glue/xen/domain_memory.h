// A domain's memory, mapped into this process.
//
// Each region is one range of address space: the guest's frames lie in it at their place, mapped
// once and for as long as the object lives, zeros where the guest has no memory. So no batch of a
// migration has to be mapped and unmapped. A frame that the guest gives back and takes again
// meanwhile is another page than the one that is mapped: XenSource watches for that.
//
// Foreign mappings can be read and written, but not pinned: no RDMA device can be given them.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/guest_memory.h"
#include "base/page_run.h"
#include "hypervisor-glue/xen/blueprint.h"
#include "hypervisor-glue/xen/xen_control.h"

namespace ramferry {

// The frames of a domain that hold memory of its own: not those that it gave back, that broke, that
// are other domains' or Xen's. Maps nothing. `last`: one more than the highest frame.
[[nodiscard]] absl::StatusOr<PageRuns> FindMemory(const XenControl& xen, const XenDomain& domain,
                                                  uint64_t last);

// Gives a domain that is being built its memory, as large pages where that is possible.
[[nodiscard]] absl::Status PopulateMemory(const XenControl& xen, const XenDomain& domain,
                                          const PageRuns& ram);

class DomainMemory {
 public:
  DomainMemory() = default;
  DomainMemory(DomainMemory&& other) noexcept { *this = std::move(other); }
  DomainMemory& operator=(DomainMemory&& other) noexcept;
  DomainMemory(const DomainMemory&) = delete;
  DomainMemory& operator=(const DomainMemory&) = delete;
  // Unmaps all of it: a domain cannot end as long as its memory is mapped.
  ~DomainMemory();

  // `xen` must outlive the object.
  [[nodiscard]] static absl::StatusOr<DomainMemory> Map(const XenControl& xen,
                                                        const XenDomain& domain,
                                                        std::vector<FrameRange> ranges,
                                                        bool writable);

  [[nodiscard]] std::span<const MappedRegion> regions() const { return regions_; }
  [[nodiscard]] const std::vector<FrameRange>& ranges() const { return ranges_; }
  // Appends the runs of a slice that have memory.
  void PopulatedRuns(const Slice& slice, PageRuns& runs) const;
  // Sets all of it to zeros.
  void Clear() const;

 private:
  std::vector<FrameRange> ranges_;
  std::vector<MappedRegion> regions_;
};

}  // namespace ramferry
