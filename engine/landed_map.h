// Which pages of the destination may hold something other than zeros: one bit a page.
//
// The destination's memory starts as zeros, so a zero page that was never sent with contents needs
// nothing at all. Not thread-safe for pages that share a 64-page word: slices are aligned
// to more, namely to 2 MiB, whose bits are a cache line that no other slice's worker writes to.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/guest_memory.h"

namespace ramferry {

class LandedMap {
 public:
  explicit LandedMap(std::span<const MappedRegion> regions) {
    for (const MappedRegion& region : regions) {
      lines_.emplace_back((region.pages() + kLinePages - 1) / kLinePages);
    }
  }

  void Set(RegionId region, PageRun run) {
    ForEachWord(region, run, [](uint64_t& word, uint64_t mask) { word |= mask; });
  }

  // Clears the bits of `run`; true when one of them was set.
  bool Clear(RegionId region, PageRun run) {
    uint64_t found = 0;
    ForEachWord(region, run, [&found](uint64_t& word, uint64_t mask) {
      found |= word & mask;
      word &= ~mask;
    });
    return found != 0;
  }

  // Where a page's bit is: for those who look who shares what.
  [[nodiscard]] const uint64_t* WordOf(RegionId region, uint64_t page) const {
    return &lines_[region][page / kLinePages].words[page % kLinePages / 64];
  }

 private:
  struct alignas(64) Line {
    std::array<uint64_t, 8> words{};
  };
  static constexpr uint64_t kLinePages = 512;
  static_assert(sizeof(Line) == 64 && kLinePages * kPageBytes == MiB(2).value());

  template <class Visit>
  void ForEachWord(RegionId region, PageRun run, Visit visit) {
    std::vector<Line>& lines = lines_[region];
    for (uint64_t page = run.first; page < run.end();) {
      const uint64_t bit = page % 64;
      const uint64_t bits = std::min(64 - bit, run.end() - page);
      const uint64_t mask = (bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1) << bit;
      visit(lines[page / kLinePages].words[page % kLinePages / 64], mask);
      page += bits;
    }
  }

  std::vector<std::vector<Line>> lines_;
};

}  // namespace ramferry
