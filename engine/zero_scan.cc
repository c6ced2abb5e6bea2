#include "engine/zero_scan.h"

// Highway compiles what is between these for every instruction set it knows (hwy/foreach_target.h).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/zero_scan.cc"
#include "hwy/foreach_target.h"
// Must come after foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ramferry::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

bool IsZeroPageImpl(const uint8_t* page) {
  const hn::ScalableTag<uint8_t> d;
  const size_t lanes = hn::Lanes(d);
  constexpr size_t kPage = 4096;
  // Most pages that are not zero show it in their first cache line.
  for (size_t i = 0; i < 64; i += lanes) {
    if (!hn::AllTrue(d, hn::Eq(hn::Load(d, page + i), hn::Zero(d)))) return false;
  }
  for (size_t i = 0; i < kPage; i += 4 * lanes) {
    const auto a = hn::Or(hn::Load(d, page + i), hn::Load(d, page + i + lanes));
    const auto b = hn::Or(hn::Load(d, page + i + 2 * lanes), hn::Load(d, page + i + 3 * lanes));
    if (!hn::AllTrue(d, hn::Eq(hn::Or(a, b), hn::Zero(d)))) return false;
  }
  return true;
}

}  // namespace ramferry::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ramferry {

HWY_EXPORT(IsZeroPageImpl);

bool IsZeroPage(const std::byte* page) {
  return HWY_DYNAMIC_DISPATCH(IsZeroPageImpl)(reinterpret_cast<const uint8_t*>(page));
}

uint64_t SameKindPages(const std::byte* pages, uint64_t count, bool& zero) {
  zero = IsZeroPage(pages);
  uint64_t same = 1;
  while (same < count && IsZeroPage(pages + same * 4096) == zero) ++same;
  return same;
}

}  // namespace ramferry
#endif
