// Runs of adjacent pages, and slices of a region: how dirt is named everywhere in Ramferry.
#pragma once

#include <cstdint>
#include <vector>

#include "base/units.h"

namespace ramferry {

// Index of a region of one guest, the same on source and destination. At most kMaxRegions.
using RegionId = uint16_t;
inline constexpr RegionId kMaxRegions = 256;

// `count` adjacent pages from page `first` of a region. Never empty where an interface hands one
// out.
struct PageRun {
  uint64_t first = 0;
  uint64_t count = 0;

  [[nodiscard]] constexpr uint64_t end() const { return first + count; }
  friend constexpr bool operator==(const PageRun&, const PageRun&) = default;
};

using PageRuns = std::vector<PageRun>;

// The piece of a region that a worker handles at a time: `pages` of region `region`.
struct Slice {
  RegionId region = 0;
  PageRun pages;

  friend constexpr bool operator==(const Slice&, const Slice&) = default;
};

// Pages in all runs together.
inline PageCount PagesIn(const PageRuns& runs) {
  uint64_t pages = 0;
  for (const PageRun& run : runs) pages += run.count;
  return PageCount(pages);
}

// Appends `run`, joining it to the last run when they touch. Runs must come in ascending order.
inline void AppendRun(PageRuns& runs, PageRun run) {
  if (run.count == 0) return;
  if (!runs.empty() && runs.back().end() == run.first) {
    runs.back().count += run.count;
  } else {
    runs.push_back(run);
  }
}

}  // namespace ramferry
