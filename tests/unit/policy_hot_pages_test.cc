// Which pages are owed, which are too hot to send: nothing is ever lost, and what is hot costs
// nothing while it is hot.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "engine/policy/hot_pages.h"

namespace ramferry {
namespace {

constexpr uint64_t kPages = 2048;
const Slice kAll{.region = 0, .pages = {0, kPages}};

// A guest's memory as versions of pages, the tracker's dirty bits, and what the destination has.
class Machine {
 public:
  Machine() : version_(kPages, 1), there_(kPages), dirty_(kPages, true) {}

  void Write(PageRun run) {
    for (uint64_t page = run.first; page < run.end(); ++page) {
      ++version_[page];
      if (!dirty_[page]) ++faults;
      dirty_[page] = true;
    }
  }
  void CollectPass(bool hold, bool judge) {
    PageRuns spans;
    pages.BeginPass(kAll, hold, spans);
    PageRuns found;
    for (const PageRun& span : spans) {
      for (uint64_t page = span.first; page < span.end(); ++page) {
        if (dirty_[page]) AppendRun(found, {page, 1});
        dirty_[page] = false;
      }
    }
    pages.Collected(kAll, spans, found, judge);
  }
  uint64_t SendPass() {
    PageRuns runs;
    skipped += pages.TakeOwed(kAll, Dirty(), runs).value();
    return Send(runs);
  }
  void Stop() {
    CollectPass(false, false);
    PageRuns runs;
    pages.TakeAllOwed(kAll, runs);
    Send(runs);
  }
  [[nodiscard]] PageRuns Dirty() const {
    PageRuns runs;
    for (uint64_t page = 0; page < kPages; ++page) {
      if (dirty_[page]) AppendRun(runs, {page, 1});
    }
    return runs;
  }
  [[nodiscard]] bool Same() const { return version_ == there_; }
  [[nodiscard]] bool DirtyOrSame(uint64_t page) const {
    return dirty_[page] || version_[page] == there_[page];
  }

  HotPages pages{std::vector<uint64_t>{kPages}};
  uint64_t faults = 0;
  uint64_t skipped = 0;

 private:
  uint64_t Send(const PageRuns& runs) {
    for (const PageRun& run : runs) {
      for (uint64_t page = run.first; page < run.end(); ++page) there_[page] = version_[page];
    }
    return PagesIn(runs).value();
  }
  std::vector<uint64_t> version_;
  std::vector<uint64_t> there_;
  std::vector<bool> dirty_;
};

constexpr PageRun kHot{100, 64};

TEST(HotPages, what_is_dirty_again_when_its_turn_comes_is_skipped_and_not_forgotten) {
  Machine machine;
  machine.CollectPass(true, false);
  machine.Write(kHot);
  EXPECT_EQ(machine.SendPass(), kPages - kHot.count);
  EXPECT_EQ(machine.skipped, kHot.count);
  EXPECT_EQ(machine.pages.ToSend(kAll, machine.Dirty()), PageCount(kHot.count));
  machine.Stop();
  EXPECT_TRUE(machine.Same());
}

TEST(HotPages, dirty_in_three_passes_running_is_held_neither_sent_nor_protected) {
  Machine machine;
  machine.CollectPass(true, false);
  machine.SendPass();
  for (unsigned pass = 0; pass < HotPages::kPasses; ++pass) {
    EXPECT_EQ(machine.pages.Held(kAll), PageCount(0));
    machine.Write(kHot);
    machine.CollectPass(true, true);
    if (pass + 1 < HotPages::kPasses) {
      EXPECT_EQ(machine.SendPass(), kHot.count);
    }
  }
  EXPECT_EQ(machine.pages.Held(kAll), PageCount(kHot.count));
  EXPECT_EQ(machine.SendPass(), 0U);
  machine.Write(kHot);
  machine.faults = 0;
  for (unsigned pass = 0; pass < HotPages::kFirstHold; ++pass) {
    machine.CollectPass(true, true);
    machine.Write(kHot);
    EXPECT_EQ(machine.SendPass(), 0U);
  }
  EXPECT_EQ(machine.faults, 0U);
  machine.Stop();
  EXPECT_TRUE(machine.Same());
}

TEST(HotPages, what_has_cooled_is_sent_before_the_guest_stops) {
  Machine machine;
  machine.CollectPass(true, false);
  machine.SendPass();
  for (int pass = 0; pass < 3; ++pass) {
    machine.Write(kHot);
    machine.CollectPass(true, true);
    machine.SendPass();
  }
  ASSERT_EQ(machine.pages.Held(kAll), PageCount(kHot.count));
  for (int pass = 0; pass < 6; ++pass) {
    machine.CollectPass(true, true);
    machine.SendPass();
  }
  EXPECT_EQ(machine.pages.Held(kAll), PageCount(0));
  EXPECT_TRUE(machine.Same());
}

TEST(HotPages, what_stays_hot_is_tried_less_and_less_often) {
  Machine machine;
  machine.CollectPass(true, false);
  uint64_t tried = 0;
  for (int pass = 0; pass < 300; ++pass) {
    machine.Write(kHot);
    machine.CollectPass(true, true);
    machine.Write(kHot);
    machine.SendPass();
    if (pass >= 150 && machine.pages.Held(kAll) == PageCount(0)) ++tried;
  }
  EXPECT_LE(tried, 6U);
  EXPECT_GE(tried, 1U);
}

TEST(HotPages, short_runs_are_not_worth_leaving_out_and_still_not_sent) {
  Machine machine;
  const PageRun few{7, HotPages::kLeastRun - 1};
  machine.CollectPass(true, false);
  machine.SendPass();
  for (int pass = 0; pass < 3; ++pass) {
    machine.Write(few);
    machine.CollectPass(true, true);
    machine.SendPass();
  }
  ASSERT_EQ(machine.pages.Held(kAll), PageCount(few.count));
  machine.Write(few);
  PageRuns spans;
  HotPages copy{std::vector<uint64_t>{kPages}};
  machine.CollectPass(true, true);
  EXPECT_TRUE(machine.Dirty().empty());
  EXPECT_EQ(machine.SendPass(), 0U);
  machine.Stop();
  EXPECT_TRUE(machine.Same());
}

TEST(HotPages, thawed_pages_are_sent_in_the_next_pass) {
  Machine machine;
  machine.CollectPass(true, false);
  machine.SendPass();
  for (int pass = 0; pass < 3; ++pass) {
    machine.Write(kHot);
    machine.CollectPass(true, true);
  }
  machine.Write(kHot);
  machine.pages.Thaw(kAll);
  EXPECT_EQ(machine.pages.Held(kAll), PageCount(0));
  machine.CollectPass(false, false);
  EXPECT_EQ(machine.SendPass(), kHot.count);
  EXPECT_TRUE(machine.Same());
}

// Whatever happens in whatever order: a page that the destination has not got is dirty or owed.
TEST(HotPages, nothing_is_ever_lost) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    Machine machine;
    std::mt19937 random(seed);
    machine.CollectPass(true, false);
    for (int step = 0; step < 60; ++step) {
      for (uint64_t i = random() % 8; i > 0; --i) {
        const uint64_t first = random() % (random() % 2 == 0 ? 300 : kPages);
        machine.Write({first, std::min<uint64_t>(1 + random() % 80, kPages - first)});
      }
      switch (random() % 8) {
        case 0:
          machine.pages.Thaw(kAll);
          break;
        case 1:
          machine.CollectPass(false, false);
          break;
        case 2:
        case 3:
        case 4:
          machine.CollectPass(true, true);
          break;
        default:
          machine.SendPass();
      }
    }
    machine.Stop();
    ASSERT_TRUE(machine.Same()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace ramferry
