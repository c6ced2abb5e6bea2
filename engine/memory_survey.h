// Where a guest's memory is, measured: the nodes of pages at even distances all over it.
//
//   const MemorySurvey survey(guest.regions(), [&](auto region, auto pages, auto nodes) {
//     guest.NodesOfPages(region, pages, nodes);
//   });
//   int node = survey.PlaceOf(slice).node;
//
// One page in 256 KiB is looked at, and no more than 65536 in all (a terabyte: one in 16 MiB). That
// takes some tens of milliseconds at most, and populates nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "base/guest_memory.h"
#include "base/page_run.h"
#include "engine/placement/worker_plan.h"

namespace ramferry {

// As SourceGuest::NodesOfPages.
using LocatePages =
    std::function<void(RegionId region, std::span<const uint64_t> pages, std::span<int> nodes)>;

class MemorySurvey {
 public:
  MemorySurvey(std::span<const MappedRegion> regions, const LocatePages& locate);

  // The node of most of its memory, and about how much of it is there.
  [[nodiscard]] SlicePlace PlaceOf(const Slice& slice) const;
  // Bytes of a region on each node, about; memory that is nowhere is left out.
  [[nodiscard]] std::map<int, uint64_t> BytesByNode(RegionId region) const;
  // Nodes that hold more than a trifle (a thirty-second) of the guest, ascending.
  [[nodiscard]] std::vector<int> Nodes() const;

 private:
  uint64_t step_;                        // pages from one sample to the next
  std::vector<std::vector<int>> nodes_;  // by region and sample
};

}  // namespace ramferry
