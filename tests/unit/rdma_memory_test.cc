// What the RDMA page channel registers and pins on both hosts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <random>
#include <string>

#include "tests/unit/rdma_pair.h"
#include "transport/rdma/needs.h"
#include "transport/rdma/staging_memory.h"

namespace ramferry::rdma {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

using RdmaMemory = RdmaChannelTest;

TEST_F(RdmaMemory, holes_are_registered_on_neither_side) {
  Open();
  constexpr uint64_t kPagesPerMib = 256;
  source_.Fill(0, 1);  // MiB 0 and 1 hold data, 2 to 9 are a hole, 10 holds data
  source_.Fill(kPagesPerMib, 1);
  source_.Fill(10 * kPagesPerMib, 1);
  const std::vector<PageWrite> writes = {source_.Write(0), source_.Write(10 * kPagesPerMib)};
  ASSERT_TRUE(channel().Write(writes).ok());
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  for (const uint64_t mib : {0, 1, 10}) {
    EXPECT_TRUE(source_memory_.Covers(source_.page(mib * kPagesPerMib))) << mib;
    EXPECT_TRUE(destination_memory_.Covers(destination_.page(mib * kPagesPerMib))) << mib;
  }
  for (const uint64_t mib : {2, 5, 9, 11}) {
    EXPECT_FALSE(source_memory_.Covers(source_.page(mib * kPagesPerMib))) << mib;
    EXPECT_FALSE(destination_memory_.Covers(destination_.page(mib * kPagesPerMib))) << mib;
  }
}

TEST_F(RdmaMemory, zeros_of_untouched_memory_populate_nothing) {
  Open();
  const PageZero zero{0, 0, kGuestBytes};
  ASSERT_TRUE(channel().WriteZeros({&zero, 1}).ok());
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_EQ(::lseek(destination_.region.fd, 0, SEEK_DATA), -1);
}

TEST_F(RdmaMemory, pinned_memory_stays_within_the_budget_and_every_page_arrives) {
  constexpr ByteCount kBudget = MiB(4);
  Open(2, kBudget);
  std::mt19937 random(7);
  for (uint64_t page = 0; page < kGuestBytes / kPageBytes; ++page) {
    source_.Fill(page, static_cast<int>(random() % 255 + 1));
  }
  for (int i = 0; i < 3000; ++i) {
    const uint64_t page = random() % (kGuestBytes / kPageBytes - 8);
    const PageWrite write = source_.Write(page, 1 + random() % 8);
    ASSERT_TRUE(pairs_[random() % 2]->channel->Write({&write, 1}).ok());
  }
  for (uint64_t page = 0; page < kGuestBytes / kPageBytes; page += 16) {
    const PageWrite write = source_.Write(page, 16);
    ASSERT_TRUE(pairs_[page / 16 % 2]->channel->Write({&write, 1}).ok());
  }
  for (const auto& pair : pairs_) ASSERT_TRUE(pair->channel->Flush(In(seconds(10))).ok());
  EXPECT_TRUE(Same(0, kGuestBytes / kPageBytes));
  EXPECT_LE(table_->most_pinned(), kBudget);
  EXPECT_LE(most_pinned_, kBudget.value());
}

TEST_F(RdmaMemory, too_small_a_budget_is_refused_with_the_least_that_works) {
  PieceLimits limits;
  limits.budget = MiB(3);
  limits.largest_piece = UINT64_MAX;
  limits.most_pieces = 64;
  limits.channels = 4;
  const auto table = PieceTable::Create({&source_.region, 1}, source_memory_, limits);
  ASSERT_FALSE(table.ok());
  EXPECT_THAT(std::string(table.status().message()), HasSubstr("at least 4 MiB"));
}

TEST_F(RdmaMemory, a_device_with_few_registrations_is_enough) {
  source_memory_.most = 3;  // one of them holds the messages
  Open(1, MiB(8));
  for (uint64_t mib = 0; mib < 16; mib += 2) {
    source_.Fill(mib * 256, static_cast<int>(mib + 1));
    const PageWrite write = source_.Write(mib * 256);
    const absl::Status status = channel().Write({&write, 1});
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  }
  for (uint64_t mib = 0; mib < 16; mib += 2) EXPECT_TRUE(Same(mib * 256));
}

// Without a budget a channel would use one piece after the other for ever.
TEST_F(RdmaMemory, with_fewer_pieces_than_it_has_the_guest_moves_all_the_same) {
  most_pieces_ = 3;
  Open(2);
  for (uint64_t mib = 0; mib < 16; mib += 2) source_.Fill(mib * 256, static_cast<int>(mib + 1));
  for (uint64_t mib = 0; mib < 16; mib += 2) {  // 8 pieces, with holes between
    const PageWrite write = source_.Write(mib * 256);
    ASSERT_TRUE(pairs_[mib / 2 % 2]->channel->Write({&write, 1}).ok());
  }
  for (const auto& pair : pairs_) ASSERT_TRUE(pair->channel->Flush(In(seconds(10))).ok());
  for (uint64_t mib = 0; mib < 16; mib += 2) EXPECT_TRUE(Same(mib * 256)) << mib;
}

// Others hold what the device has: known only now.
TEST_F(RdmaMemory, a_device_that_runs_out_of_registrations_fails_all_channels_with_words) {
  Open(2);
  source_.Fill(0, 1);
  source_.Fill(4 * 256, 1);
  const PageWrite first = source_.Write(0);
  ASSERT_TRUE(channel().Write({&first, 1}).ok());
  source_memory_.most = 3;  // messages of two channels, one piece
  const PageWrite second = source_.Write(4 * 256);
  const absl::Status status = channel().Write({&second, 1});
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot register 1 MiB at 4 MiB"));
  EXPECT_EQ(channel().Flush(In(seconds(10))), status);
  EXPECT_FALSE(pairs_[1]->channel->Write({&second, 1}).ok());
}

TEST_F(RdmaMemory, devices_that_allow_too_little_together_are_refused_before_pages_are_sent) {
  PieceLimits limits{
      .budget = ByteCount(0), .largest_piece = kGranule, .most_pieces = 4, .channels = 4};
  const auto create = [&] {
    return PieceTable::Create({&source_.region, 1}, source_memory_, limits).status();
  };
  EXPECT_TRUE(create().ok());
  limits.most_pieces = 3;
  EXPECT_THAT(std::string(create().message()), HasSubstr("allow 3 registrations"));
  limits.most_pieces = 4;
  limits.largest_piece = kGranule / 2;
  EXPECT_THAT(std::string(create().message()), HasSubstr("of at most 512 KiB"));
}

TEST_F(RdmaMemory, memory_that_cannot_be_registered_goes_through_the_staging_ring) {
  source_.region.can_register = false;
  Open();
  link().hold_local_completions = true;
  std::mt19937 random(3);
  for (uint64_t page = 0; page < kGuestBytes / kPageBytes; ++page) {
    source_.Fill(page, static_cast<int>(random() % 256));
  }
  for (int round = 0; round < 2; ++round) {  // 32 MiB through a ring of 8
    const PageWrite all = source_.Write(0, kGuestBytes / kPageBytes);
    ASSERT_TRUE(channel().Write({&all, 1}).ok());
  }
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_FALSE(source_memory_.Covers(source_.page(0)));
  EXPECT_TRUE(Same(0, kGuestBytes / kPageBytes));
}

// Huge pages of 2 MiB for one ring, for the time of a test; given back then.
class HugePages {
 public:
  HugePages() : before_(Read("nr_hugepages")) { Write(before_ + kRing); }
  ~HugePages() { Write(before_); }
  [[nodiscard]] static uint64_t Free() { return Read("free_hugepages"); }
  static constexpr uint64_t kRing = kStagingBytes / MiB(2).value();

 private:
  static std::string Path(const char* file) {
    return std::string("/sys/kernel/mm/hugepages/hugepages-2048kB/") + file;
  }
  static uint64_t Read(const char* file) {
    uint64_t number = 0;
    std::ifstream(Path(file)) >> number;
    return number;
  }
  static void Write(uint64_t number) { std::ofstream(Path("nr_hugepages")) << number; }

  const uint64_t before_;
};

// The page size of the mapping in which an address is, in KiB; 0: there is none.
uint64_t PageKiBAt(const std::byte* address) {
  std::ifstream maps("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0;
    unsigned long end = 0;
    unsigned long size = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
      const auto at = reinterpret_cast<uintptr_t>(address);
      here = begin <= at && at < end;
    } else if (here && std::sscanf(line.c_str(), "KernelPageSize: %lu", &size) == 1) {
      return size;
    }
  }
  return 0;
}

TEST_F(RdmaMemory, the_staging_ring_is_in_huge_pages_if_there_are_any) {
  if (HugePages::Free() == 0) {
    const auto small = StagingMemory::Map();
    ASSERT_TRUE(small.ok()) << small.status();
    EXPECT_FALSE(small->in_huge_pages());
    EXPECT_EQ(PageKiBAt(small->bytes()), 4U);
    small->bytes()[kStagingBytes - 1] = std::byte{1};
  }
  const HugePages pool;
  if (HugePages::Free() < HugePages::kRing) GTEST_SKIP() << "no huge pages to be had here";
  const std::byte* ring = nullptr;
  {
    const auto memory = StagingMemory::Map();
    ASSERT_TRUE(memory.ok()) << memory.status();
    EXPECT_TRUE(memory->in_huge_pages());
    ring = memory->bytes();
    EXPECT_EQ(PageKiBAt(ring), 2048U);
  }
  EXPECT_EQ(PageKiBAt(ring), 0U) << "it is still mapped";

  // And pages go through such a ring as through any.
  source_.region.can_register = false;
  Open();
  for (uint64_t page = 0; page < kGuestBytes / kPageBytes; ++page) {
    source_.Fill(page, static_cast<int>(page % 251 + 1));
  }
  const PageWrite all = source_.Write(0, kGuestBytes / kPageBytes);
  ASSERT_TRUE(channel().Write({&all, 1}).ok());
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_TRUE(Same(0, kGuestBytes / kPageBytes));
}

// Given up, or done: whoever kept a key can do nothing with it.
TEST_F(RdmaMemory, keys_are_good_for_nothing_when_the_migration_is_over) {
  Open();
  const PageWrite write = source_.Write(0);
  ASSERT_TRUE(channel().Write({&write, 1}).ok());
  ASSERT_TRUE(channel().Flush(In(std::chrono::seconds(10))).ok());
  landing_->Close();
  const absl::Status late = channel().Write({&write, 1});
  EXPECT_TRUE(absl::IsAborted(late)) << late;
  EXPECT_FALSE(destination_memory_.Covers(destination_.page(0)));
}

}  // namespace
}  // namespace ramferry::rdma
