// What is known about single pages: zero or not, landed or not, and the digest of a slice.
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "engine/image_digest.h"
#include "engine/landed_map.h"
#include "engine/zero_scan.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/tracking/memory_file.h"

namespace ramferry {
namespace {

// Some pages of this process, zero at first.
struct Pages {
  explicit Pages(uint64_t count) : file(*MemoryFile::Create(ByteCount(count * kPageBytes), "t")) {}
  [[nodiscard]] std::byte* page(uint64_t number) const {
    return file.address() + number * kPageBytes;
  }
  [[nodiscard]] MappedRegion region() const {
    return {.description = {.name = "ram", .size = file.size()},
            .address = file.address(),
            .fd = file.fd()};
  }
  MemoryFile file;
};

TEST(ZeroScan, a_single_byte_or_bit_is_seen_at_every_position) {
  Pages pages(3);
  // Neighbours that are not zero must not matter.
  std::memset(pages.page(0), 0xff, kPageBytes);
  std::memset(pages.page(2), 0xff, kPageBytes);
  ASSERT_TRUE(IsZeroPage(pages.page(1)));
  for (uint64_t at = 0; at < kPageBytes; ++at) {
    for (const int bit : {0, 7}) {
      pages.page(1)[at] = std::byte(1 << bit);
      ASSERT_FALSE(IsZeroPage(pages.page(1))) << "byte " << at << " bit " << bit;
    }
    pages.page(1)[at] = std::byte(0);
  }
  EXPECT_TRUE(IsZeroPage(pages.page(1)));
}

TEST(ZeroScan, every_page_of_a_mapping_is_aligned_well_enough) {
  Pages pages(64);
  for (uint64_t i = 0; i < 64; i += 2) pages.page(i)[4095] = std::byte(1);
  for (uint64_t i = 0; i < 64; ++i) EXPECT_EQ(IsZeroPage(pages.page(i)), i % 2 == 1) << i;
}

TEST(ZeroScan, same_kind_pages_end_where_the_kind_changes_or_the_count_ends) {
  Pages pages(10);  // 3 zero, 4 not, 3 zero
  for (uint64_t i = 3; i < 7; ++i) pages.page(i)[i * 17] = std::byte(1);
  bool zero = false;
  EXPECT_EQ(SameKindPages(pages.page(0), 10, zero), 3U);
  EXPECT_TRUE(zero);
  EXPECT_EQ(SameKindPages(pages.page(3), 7, zero), 4U);
  EXPECT_FALSE(zero);
  EXPECT_EQ(SameKindPages(pages.page(7), 3, zero), 3U);
  EXPECT_TRUE(zero);
  EXPECT_EQ(SameKindPages(pages.page(3), 2, zero), 2U);
  EXPECT_EQ(SameKindPages(pages.page(6), 1, zero), 1U);
  EXPECT_FALSE(zero);
}

TEST(LandedMap, clear_says_whether_any_page_had_landed) {
  const std::vector<MappedRegion> regions = {{.description = {.size = ByteCount(200 * kPageBytes)}},
                                             {.description = {.size = ByteCount(1 * kPageBytes)}}};
  LandedMap map(regions);
  EXPECT_FALSE(map.Clear(0, {0, 200}));
  map.Set(0, {63, 2});
  EXPECT_FALSE(map.Clear(1, {0, 1})) << "another region";
  EXPECT_FALSE(map.Clear(0, {0, 63}));
  EXPECT_FALSE(map.Clear(0, {65, 135}));
  EXPECT_TRUE(map.Clear(0, {64, 1}));
  EXPECT_TRUE(map.Clear(0, {0, 200})) << "page 63 is still there";
  EXPECT_FALSE(map.Clear(0, {0, 200})) << "cleared by the call before";
}

TEST(LandedMap, agrees_with_a_plain_bitmap_on_random_runs) {
  constexpr uint64_t kCount = 1000;
  const std::vector<MappedRegion> regions = {
      {.description = {.size = ByteCount(kCount * kPageBytes)}}};
  LandedMap map(regions);
  std::vector<bool> plain(kCount);
  std::mt19937 random(7);
  for (int step = 0; step < 20000; ++step) {
    const uint64_t first = random() % kCount;
    const PageRun run{first, 1 + random() % std::min<uint64_t>(kCount - first, 200)};
    if (random() % 2 == 0) {
      map.Set(0, run);
      std::fill_n(plain.begin() + static_cast<long>(run.first), run.count, true);
    } else {
      bool any = false;
      for (uint64_t page = run.first; page < run.end(); ++page) {
        any = any || plain[page];
        plain[page] = false;
      }
      ASSERT_EQ(map.Clear(0, run), any) << run.first << "+" << run.count;
    }
  }
}

TEST(LandedMap, slices_of_different_workers_do_not_disturb_each_other) {
  const std::vector<MappedRegion> regions = {{.description = {.size = MiB(8)}}};
  LandedMap map(regions);
  std::vector<std::thread> threads;
  for (uint64_t worker = 0; worker < 4; ++worker) {
    threads.emplace_back([&, worker] {
      for (int step = 0; step < 2000; ++step) {
        for (uint64_t page = worker * 512; page < (worker + 1) * 512; page += 37) {
          map.Set(0, {page, 1});
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint64_t worker = 0; worker < 4; ++worker) {
    for (uint64_t page = worker * 512; page < (worker + 1) * 512; page += 37) {
      EXPECT_TRUE(map.Clear(0, {page, 1}));
    }
  }
}

TEST(ImageDigest, a_hole_and_a_page_of_zeros_are_the_same) {
  Pages with_hole(8);
  Pages with_zeros(8);
  for (const Pages* pages : {&with_hole, &with_zeros}) {
    std::memset(pages->page(1), 0x11, kPageBytes);
    std::memset(pages->page(6), 0x66, kPageBytes);
  }
  std::memset(with_zeros.page(3), 0, kPageBytes);
  PageRuns holes;
  ASSERT_TRUE(with_hole.file.PopulatedRuns({0, 8}, holes).ok());
  ASSERT_EQ(holes, (PageRuns{{1, 1}, {6, 1}}));
  const auto a = DigestSlice(with_hole.region(), holes);
  const auto b = DigestSlice(with_zeros.region(), {{0, 8}});
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->size(), 32U);
  EXPECT_EQ(*a, *b);
  PageRuns after;
  ASSERT_TRUE(with_hole.file.PopulatedRuns({0, 8}, after).ok());
  EXPECT_EQ(after, holes) << "digesting has populated holes";
}

TEST(ImageDigest, any_flipped_bit_changes_it_and_so_does_a_moved_page) {
  Pages pages(4);
  std::memset(pages.page(2), 0x5a, kPageBytes);
  const std::string before = *DigestSlice(pages.region(), {{0, 4}});
  for (const uint64_t at : {0UL, 63UL, 64UL, 2048UL, 4095UL}) {
    for (const uint64_t page : {0UL, 2UL, 3UL}) {
      for (int bit = 0; bit < 8; ++bit) {
        pages.page(page)[at] ^= std::byte(1 << bit);
        EXPECT_NE(*DigestSlice(pages.region(), {{0, 4}}), before)
            << page << ":" << at << "." << bit;
        pages.page(page)[at] ^= std::byte(1 << bit);
      }
    }
  }
  EXPECT_EQ(*DigestSlice(pages.region(), {{0, 4}}), before);
  std::memset(pages.page(1), 0x5a, kPageBytes);
  std::memset(pages.page(2), 0, kPageBytes);
  EXPECT_NE(*DigestSlice(pages.region(), {{0, 4}}), before) << "the same page elsewhere";
}

}  // namespace
}  // namespace ramferry
