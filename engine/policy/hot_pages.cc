#include "engine/policy/hot_pages.h"

#include <algorithm>
#include <bit>

namespace ramferry {
namespace {

constexpr uint64_t kBits = 64;

uint64_t Mask(uint64_t word, uint64_t first, uint64_t end) {
  const uint64_t begin = word * kBits;
  uint64_t mask = ~uint64_t{0};
  if (first > begin) mask &= ~uint64_t{0} << (first - begin);
  if (end < begin + kBits) mask &= (uint64_t{1} << (end - begin)) - 1;
  return mask;
}

// Calls visit(word, mask) for each 64-page word that `run` touches.
template <class Visit>
void ForEachWord(PageRun run, Visit visit) {
  if (run.count == 0) return;
  for (uint64_t word = run.first / kBits; word * kBits < run.end(); ++word) {
    visit(word, Mask(word, run.first, run.end()));
  }
}

void AppendBits(uint64_t word, uint64_t bits, PageRuns& runs) {
  while (bits != 0) {
    const auto first = static_cast<uint64_t>(std::countr_zero(bits));
    const auto count = static_cast<uint64_t>(std::countr_one(bits >> first));
    AppendRun(runs, {word * kBits + first, count});
    if (first + count == kBits) return;
    bits &= ~uint64_t{0} << (first + count);
  }
}

// Walks ascending runs along ascending words.
class RunMasks {
 public:
  explicit RunMasks(const PageRuns& runs) : runs_(runs) {}
  uint64_t Of(uint64_t word) {
    const uint64_t begin = word * kBits;
    while (next_ < runs_.size() && runs_[next_].end() <= begin) ++next_;
    uint64_t mask = 0;
    for (size_t i = next_; i < runs_.size() && runs_[i].first < begin + kBits; ++i) {
      mask |= Mask(word, runs_[i].first, runs_[i].end());
    }
    return mask;
  }

 private:
  const PageRuns& runs_;
  size_t next_ = 0;
};

}  // namespace

HotPages::HotPages(std::span<const uint64_t> pages) {
  for (const uint64_t count : pages) {
    const uint64_t blocks = (count + kBlock - 1) / kBlock;
    Region region;
    region.owed.resize((count + kBits - 1) / kBits);
    region.blocks.resize(blocks);
    regions_.push_back(std::move(region));
  }
}

void HotPages::BeginPass(const Slice& slice, bool hold, PageRuns& spans) {
  Region& region = regions_[slice.region];
  if (!hold) return AppendRun(spans, slice.pages);
  uint64_t from = slice.pages.first;  // of the span that is being made
  uint64_t held_from = 0;
  uint64_t held_to = 0;  // the run of held pages that is being looked at
  const auto leave_out = [&] {
    if (held_to - held_from < kLeastRun) return;
    AppendRun(spans, {from, held_from - from});
    from = held_to;
  };
  const uint64_t end = slice.pages.end();
  for (uint64_t first = slice.pages.first; first < end;) {
    const uint64_t next = std::min((first / kBlock + 1) * kBlock, end);
    Block* block = region.blocks[first / kBlock].get();
    if (block != nullptr && block->held > 0) {
      for (uint64_t number = first; number < next; ++number) {
        Page& page = block->pages[number % kBlock];
        if (page.left == 0) continue;
        if (--page.left == 0) {
          page.trial = Trial::kClear;
          --block->held;
          continue;
        }
        if (held_to != number) {
          leave_out();
          held_from = number;
        }
        held_to = number + 1;
      }
    }
    first = next;
  }
  leave_out();
  AppendRun(spans, {from, end - from});
}

void HotPages::Judge(Region& region, uint64_t number, bool dirty) {
  std::unique_ptr<Block>& block = region.blocks[number / kBlock];
  if (block == nullptr) {
    if (!dirty) return;
    block = std::make_unique<Block>();
  }
  Page& page = block->pages[number % kBlock];
  if (!dirty) {  // not written since it was last collected
    if (page.left > 0) --block->held;
    if (page.heat > 0) --block->warm;
    page = {};
    return;
  }
  if (page.left > 0) return;  // collected in passing
  if (page.trial == Trial::kClear) {
    page.trial = Trial::kLook;
    return;
  }
  if (page.trial == Trial::kLook) {
    page.trial = Trial::kNone;
    ++page.again;
  } else {
    if (page.heat++ == 0) ++block->warm;
    if (page.heat < kPasses) return;
  }
  page.left = static_cast<uint8_t>(
      std::min(kFirstHold << std::min<unsigned>(page.again, 6), kLongestHold) + 1);
  ++block->held;
}

void HotPages::Collected(const Slice& slice, const PageRuns& spans, const PageRuns& dirty,
                         bool judge) {
  Region& region = regions_[slice.region];
  RunMasks dirty_masks(dirty);
  for (const PageRun& span : spans) {
    ForEachWord(span, [&](uint64_t word, uint64_t mask) {
      const uint64_t bits = dirty_masks.Of(word) & mask;
      region.owed[word] |= bits;
      if (!judge) return;
      const Block* block = region.blocks[word * kBits / kBlock].get();
      const bool warm = block != nullptr && block->warm > 0;
      for (uint64_t left = warm ? mask : bits; left != 0; left &= left - 1) {
        const auto bit = static_cast<uint64_t>(std::countr_zero(left));
        Judge(region, word * kBits + bit, ((bits >> bit) & 1) != 0);
      }
    });
  }
}

uint64_t HotPages::HeldMask(const Region& region, uint64_t word) {
  const uint64_t first = word * kBits;
  const Block* block = region.blocks[first / kBlock].get();
  if (block == nullptr || block->held == 0) return 0;
  uint64_t mask = 0;
  for (uint64_t i = 0; i < kBits; ++i) {
    if (block->pages[(first + i) % kBlock].left > 0) mask |= uint64_t{1} << i;
  }
  return mask;
}

PageCount HotPages::TakeOwed(const Slice& part, const PageRuns& again, PageRuns& runs) {
  Region& region = regions_[part.region];
  RunMasks again_masks(again);
  uint64_t left_out = 0;
  ForEachWord(part.pages, [&](uint64_t word, uint64_t mask) {
    const uint64_t owed = region.owed[word] & mask;
    if (owed == 0) return;
    const uint64_t wanted = owed & ~HeldMask(region, word);
    const uint64_t dirty = wanted & again_masks.Of(word);
    left_out += static_cast<uint64_t>(std::popcount(dirty));
    AppendBits(word, wanted & ~dirty, runs);
    region.owed[word] &= ~(wanted & ~dirty);
  });
  return PageCount(left_out);
}

void HotPages::TakeAllOwed(const Slice& part, PageRuns& runs) {
  Region& region = regions_[part.region];
  ForEachWord(part.pages, [&](uint64_t word, uint64_t mask) {
    AppendBits(word, region.owed[word] & mask, runs);
    region.owed[word] &= ~mask;
  });
}

PageCount HotPages::ToSend(const Slice& slice, const PageRuns& dirty) const {
  const Region& region = regions_[slice.region];
  RunMasks dirty_masks(dirty);
  uint64_t pages = 0;
  ForEachWord(slice.pages, [&](uint64_t word, uint64_t mask) {
    pages +=
        static_cast<uint64_t>(std::popcount((region.owed[word] | dirty_masks.Of(word)) & mask));
  });
  return PageCount(pages);
}

PageCount HotPages::Held(const Slice& slice) const {
  uint64_t held = 0;
  ForEachWord(slice.pages, [&](uint64_t word, uint64_t mask) {
    held += static_cast<uint64_t>(std::popcount(HeldMask(regions_[slice.region], word) & mask));
  });
  return PageCount(held);
}

void HotPages::Thaw(const Slice& slice) {
  Region& region = regions_[slice.region];
  for (uint64_t block = slice.pages.first / kBlock; block * kBlock < slice.pages.end(); ++block) {
    region.blocks[block].reset();
  }
}

}  // namespace ramferry
