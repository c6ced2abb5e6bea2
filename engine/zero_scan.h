// Finds zero pages, with SIMD (Highway, the best instruction set of this CPU).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ramferry {

// Whether the 4096 bytes at `page` (page-aligned) are all zero. Another thread may write meanwhile:
// the answer is then that of some moment. Ends at the first cache line that is not zero.
[[nodiscard]] bool IsZeroPage(const std::byte* page);

// How many pages from `pages` on, at most `count`, are alike in being zero or not; `zero` says
// which. `count` is at least 1.
[[nodiscard]] uint64_t SameKindPages(const std::byte* pages, uint64_t count, bool& zero);

}  // namespace ramferry
