#include "hypervisor-glue/xen/sliced_bitmap.h"

#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ramferry {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// A log that is read and cleared as a whole, as Xen's.
struct Log {
  std::vector<uint64_t> words;
  int fetches = 0;

  explicit Log(uint64_t pages) : words((pages + 63) / 64) {}
  void Write(uint64_t page) { words[page / 64] |= uint64_t{1} << page % 64; }
  SlicedBitmap::Fetch Fetch() {
    return [this](std::span<uint64_t> to) {
      ++fetches;
      for (size_t i = 0; i < to.size(); ++i) to[i] = std::exchange(words[i], 0);
      return absl::OkStatus();
    };
  }
};

PageRuns Take(SlicedBitmap& bitmap, PageRun part, int64_t offset = 0) {
  PageRuns runs;
  EXPECT_TRUE(bitmap.Take(part, offset, runs).ok());
  return runs;
}

TEST(SlicedBitmapTest, one_fetch_serves_all_slices_of_a_round) {
  Log log(200);
  SlicedBitmap bitmap(200, log.Fetch());
  Take(bitmap, {0, 100});
  Take(bitmap, {100, 100});
  EXPECT_EQ(log.fetches, 0) << "nothing was handed out before";
  log.Write(3);
  log.Write(150);
  EXPECT_THAT(Take(bitmap, {100, 100}), ElementsAre(PageRun{150, 1}));
  EXPECT_THAT(Take(bitmap, {0, 100}), ElementsAre(PageRun{3, 1}));
  EXPECT_EQ(log.fetches, 1);
}

TEST(SlicedBitmapTest, a_write_after_the_fetch_is_seen_in_the_next_round) {
  Log log(200);
  SlicedBitmap bitmap(200, log.Fetch());
  Take(bitmap, {0, 100});
  Take(bitmap, {100, 100});
  Take(bitmap, {0, 100});
  log.Write(150);
  EXPECT_THAT(Take(bitmap, {100, 100}), IsEmpty());
  Take(bitmap, {0, 100});
  EXPECT_THAT(Take(bitmap, {100, 100}), ElementsAre(PageRun{150, 1}));
}

TEST(SlicedBitmapTest, what_is_fetched_and_not_taken_is_kept) {
  Log log(200);
  SlicedBitmap bitmap(200, log.Fetch());
  Take(bitmap, {0, 100});
  log.Write(150);
  Take(bitmap, {0, 100});  // fetches
  Take(bitmap, {0, 100});  // and again
  EXPECT_EQ(log.fetches, 2);
  EXPECT_THAT(Take(bitmap, {100, 100}), ElementsAre(PageRun{150, 1}));
}

TEST(SlicedBitmapTest, after_renew_nothing_old_is_handed_out) {
  Log log(200);
  SlicedBitmap bitmap(200, log.Fetch());
  Take(bitmap, {0, 100});
  log.Write(150);
  bitmap.Renew();  // the guest stands still: what it wrote must be seen now
  EXPECT_THAT(Take(bitmap, {100, 100}), ElementsAre(PageRun{150, 1}));
  Take(bitmap, {0, 100});
  EXPECT_EQ(log.fetches, 1);
}

TEST(SlicedBitmapTest, runs_cross_words_and_are_counted_from_the_offset) {
  Log log(256);
  SlicedBitmap bitmap(256, log.Fetch());
  bitmap.Mark({60, 10});
  bitmap.Mark({127, 66});
  EXPECT_THAT(Take(bitmap, {50, 150}, -50), ElementsAre(PageRun{10, 10}, PageRun{77, 66}));
  bitmap.Mark({60, 10});
  EXPECT_THAT(Take(bitmap, {62, 4}), ElementsAre(PageRun{62, 4})) << "cut at the slice's ends";
}

TEST(SlicedBitmapTest, workers_lose_no_page_between_them) {
  constexpr uint64_t kPages = 4096;
  constexpr uint64_t kSlices = 8;
  Log log(kPages);
  SlicedBitmap bitmap(kPages, log.Fetch());
  for (uint64_t page = 0; page < kPages; page += 3) bitmap.Mark({page, 1});
  std::vector<uint64_t> found(kSlices);
  std::vector<std::thread> workers;
  for (uint64_t i = 0; i < kSlices; ++i) {
    workers.emplace_back([&, i] {
      const PageRun slice{i * kPages / kSlices, kPages / kSlices};
      found[i] = PagesIn(Take(bitmap, slice)).value();
    });
  }
  for (std::thread& worker : workers) worker.join();
  uint64_t total = 0;
  for (const uint64_t pages : found) total += pages;
  EXPECT_EQ(total, (kPages + 2) / 3);
}

TEST(SlicedBitmapTest, a_slice_outside_is_an_error) {
  Log log(100);
  SlicedBitmap bitmap(100, log.Fetch());
  PageRuns runs;
  EXPECT_FALSE(bitmap.Take({90, 20}, 0, runs).ok());
}

}  // namespace
}  // namespace ramferry
