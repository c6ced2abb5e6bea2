// What is known of each page of a guest during pre-copy: whether it is owed to the destination, and
// whether it is too hot to send.
//
// A page is *owed* when its dirty bit has been cleared and its contents were not handed to a
// channel since. Whoever clears bits says so here; whoever sends takes the pages from here; the
// last round sends whatever is dirty or owed. Nothing else has to be right for the image to be
// whole.
//
// A page is *hot* when it was dirty in kPasses passes running. It is then *held* for some passes:
// neither sent nor write-protected again, so that the guest writes it without a fault. After that
// it is tried: written again until the next pass but one, it is held twice as long; else it has
// cooled.
//
//   pages.BeginPass(slice, /*hold=*/true, spans);  // what to collect; the rest is held
//   collect `spans` into `dirty`;
//   pages.Collected(slice, spans, dirty, /*judge=*/true);
//   look at what is dirty again;
//   pages.TakeOwed(slice, again, runs);            // send these
//
// (Clark et al., NSDI 2005, section 5.2 and 5.5: pages dirtied again are skipped, and the writable
// working set is not sent until the end.)
//
// Memory: a bit a page, and four bytes for each page of the 2 MiB blocks that were dirty in some
// pass. Pure. Calls for slices that share no block of 2 MiB may be made at the same time; slices
// never share one (slice_queue.h).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/page_run.h"
#include "base/units.h"

namespace ramferry {

class HotPages {
 public:
  static constexpr unsigned kPasses = 3;
  static constexpr uint64_t kBlock = MiB(2).value() / kPageBytes;  // pages
  // Passes that a page is held the first time, and at most.
  static constexpr unsigned kFirstHold = 2;
  static constexpr unsigned kLongestHold = 128;
  // Shorter runs of held pages are collected all the same (and not sent): leaving one out costs a
  // system call.
  static constexpr uint64_t kLeastRun = 16;

  // By region: how many pages it has.
  explicit HotPages(std::span<const uint64_t> pages);

  // A pass over `slice` begins: appends what is to be collected, ascending. With `hold`, held pages
  // are left out.
  void BeginPass(const Slice& slice, bool hold, PageRuns& spans);
  // `spans` were collected: `dirty` was, and is not any more. `judge`: it says how hot pages are;
  // not in the first round, where all pages count as dirty.
  void Collected(const Slice& slice, const PageRuns& spans, const PageRuns& dirty, bool judge);
  // Appends the runs of `part` that are owed, not held, and not in `again`: what is dirty at this
  // moment comes back by itself. They are owed no more. Returns how many `again` left out.
  PageCount TakeOwed(const Slice& part, const PageRuns& again, PageRuns& runs);
  // All that are owed, held or not: for the last round.
  void TakeAllOwed(const Slice& part, PageRuns& runs);
  // How many pages of the slice are owed or in `dirty`.
  [[nodiscard]] PageCount ToSend(const Slice& slice, const PageRuns& dirty) const;
  [[nodiscard]] PageCount Held(const Slice& slice) const;
  // No page of the slice is hot any more.
  void Thaw(const Slice& slice);

 private:
  // The dirty bit of a page that was held is set, and says nothing: it is cleared in one pass and
  // looked at in the next.
  enum class Trial : uint8_t { kNone, kClear, kLook };
  struct Page {
    uint8_t heat = 0;   // passes running in which it was dirty, up to kPasses
    uint8_t left = 0;   // it is held while this is not 0
    uint8_t again = 0;  // how often it was held again
    Trial trial = Trial::kNone;
  };
  struct Block {
    std::array<Page, kBlock> pages;
    uint32_t held = 0;  // of them
    uint32_t warm = 0;  // of them: with heat
  };
  struct Region {
    std::vector<uint64_t> owed;
    std::vector<std::unique_ptr<Block>> blocks;  // null: all cold
  };
  [[nodiscard]] static uint64_t HeldMask(const Region& region, uint64_t word);
  static void Judge(Region& region, uint64_t page, bool dirty);

  std::vector<Region> regions_;
};

}  // namespace ramferry
