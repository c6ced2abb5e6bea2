// What the page shipper sends: all that is needed and nothing else, in batches that its channel
// likes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "engine/page_shipper.h"
#include "engine/precopy.h"
#include "hypervisor-glue/synthetic/synthetic_guest.h"
#include "tests/unit/engine_site.h"
#include "tests/unit/fake_page_channel.h"

namespace ramferry {
namespace {

constexpr uint64_t kPages = 2048;

// A guest, a channel that lands in a destination, and a shipper between them.
struct Path {
  explicit Path(ChannelCapabilities capabilities = {.transport = "fake", .largest_write = MiB(1)})
      : guest(*SyntheticGuest::Create({.regions = {{"ram", BytesIn(PageCount(kPages))}}})),
        destination(*SyntheticDestination::Create(guest->description())),
        channel(std::move(capabilities), destination->regions()),
        landed(guest->regions()) {
    EXPECT_TRUE(guest->StartTracking().ok());
  }
  // What the guest does: page `number` gets `value` everywhere.
  void Fill(uint64_t number, int value) const {
    std::memset(guest->memory()[0].address + number * kPageBytes, value, kPageBytes);
  }
  void PunchHole(uint64_t first, uint64_t count) const {
    ASSERT_EQ(
        ::fallocate(guest->memory()[0].fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(first * kPageBytes), static_cast<off_t>(count * kPageBytes)),
        0);
  }
  void Ship(CollectBy by) {
    const Slice all{.region = 0, .pages = {0, kPages}};
    PageRuns runs;
    ASSERT_TRUE(guest->CollectDirty(all, runs).ok());
    if (by == CollectBy::kPopulated) runs = Populated();
    const absl::Status status = shipper.ShipCollected(0, runs);
    ASSERT_TRUE(status.ok()) << status;
  }
  [[nodiscard]] bool Same() const {
    return std::memcmp(guest->regions()[0].address, destination->regions()[0].address,
                       kPages * kPageBytes) == 0;
  }
  [[nodiscard]] PageRuns Populated() const {
    PageRuns runs;
    EXPECT_TRUE(guest->PopulatedRuns({.region = 0, .pages = {0, kPages}}, runs).ok());
    return runs;
  }

  std::unique_ptr<SyntheticGuest> guest;
  std::unique_ptr<SyntheticDestination> destination;
  FakePageChannel channel;
  LandedMap landed;
  TokenBucket rate;
  Cancellation cancel;
  ShippedPages shipped;
  PageShipper shipper{*guest, channel, landed, rate, cancel, shipped};
};

TEST(PageShipper, first_round_sends_what_was_touched_later_rounds_what_was_written) {
  Path path;
  path.Fill(3, 1);
  path.Fill(4, 2);
  path.Fill(900, 3);
  path.Ship(CollectBy::kPopulated);
  EXPECT_EQ(path.channel.pages_written(), 3U);
  EXPECT_TRUE(path.Same());

  path.channel.Forget();
  path.Fill(4, 5);
  path.Fill(7, 6);
  path.Ship(CollectBy::kDirty);
  EXPECT_EQ(path.channel.pages_written(), 2U);
  EXPECT_TRUE(path.Same());

  path.channel.Forget();
  path.Ship(CollectBy::kDirty);
  EXPECT_EQ(path.channel.pages_written(), 0U);
}

TEST(PageShipper, zero_pages_that_never_landed_cost_nothing) {
  Path path;
  for (uint64_t page = 100; page < 200; ++page) path.Fill(page, 0);
  path.Fill(150, 1);
  path.Ship(CollectBy::kPopulated);
  EXPECT_EQ(path.channel.pages_written(), 1U);
  EXPECT_EQ(path.channel.zeros.size(), 0U);
  EXPECT_EQ(path.shipped.zero.load(), 99U);
  EXPECT_EQ(path.shipped.sent.load(), 1U);
  EXPECT_TRUE(path.Same());
}

TEST(PageShipper, a_page_that_becomes_zero_after_it_landed_is_sent_as_zero_once) {
  Path path;
  for (uint64_t page = 10; page < 20; ++page) path.Fill(page, 1);
  path.Ship(CollectBy::kPopulated);
  path.channel.Forget();
  for (uint64_t page = 10; page < 15; ++page) path.Fill(page, 0);
  path.Ship(CollectBy::kDirty);
  EXPECT_EQ(path.channel.pages_zeroed(), 5U);
  EXPECT_EQ(path.channel.pages_written(), 0U);
  EXPECT_TRUE(path.Same());

  path.channel.Forget();
  path.Fill(12, 0);  // dirty, zero, and zero there already
  path.Ship(CollectBy::kDirty);
  EXPECT_EQ(path.channel.pages_zeroed(), 0U);

  path.Fill(12, 9);  // and back
  path.Ship(CollectBy::kDirty);
  path.Fill(12, 0);
  path.Ship(CollectBy::kDirty);
  EXPECT_EQ(path.channel.pages_zeroed(), 1U);
  EXPECT_TRUE(path.Same());
}

TEST(PageShipper, memory_that_the_guest_gave_back_becomes_zero_and_is_not_populated_by_looking) {
  Path path;
  for (uint64_t page = 0; page < 1500; ++page) path.Fill(page, 1);
  path.Ship(CollectBy::kPopulated);
  path.channel.Forget();
  for (uint64_t page = 100; page < 1100; ++page) path.Fill(page, 2);
  path.PunchHole(100, 1000);  // as a balloon does
  path.Fill(600, 7);
  const PageRuns before = path.Populated();
  path.Ship(CollectBy::kDirty);
  EXPECT_EQ(path.Populated(), before) << "sending has touched the source's holes";
  EXPECT_TRUE(path.Same());
  EXPECT_EQ(path.channel.pages_zeroed(), 999U);
  EXPECT_EQ(path.channel.pages_written(), 1U);
}

TEST(PageShipper, the_first_round_leaves_holes_alone) {
  Path path;
  path.Fill(0, 1);
  path.Fill(2000, 1);
  const PageRuns before = path.Populated();
  path.Ship(CollectBy::kPopulated);
  EXPECT_EQ(path.Populated(), before);
  EXPECT_EQ(before, (PageRuns{{0, 1}, {2000, 1}}));
}

TEST(PageShipper, writes_and_batches_are_no_larger_than_the_channel_likes) {
  Path path({.transport = "fake", .largest_write = KiB(32), .batch = 5});
  for (uint64_t page = 0; page < 1001; ++page) path.Fill(page, 1);
  for (uint64_t page = 1200; page < 1400; page += 2) path.Fill(page, 2);  // no two adjoin
  path.Ship(CollectBy::kPopulated);
  for (const auto& batch : path.channel.writes) {
    EXPECT_LE(batch.size(), 5U);
    EXPECT_GE(batch.size(), 1U);
    for (const PageWrite& write : batch) {
      ASSERT_LE(write.length, KiB(32).value());
      ASSERT_GT(write.length, 0U);
      ASSERT_EQ(write.length % kPageBytes, 0U);
      ASSERT_EQ(write.offset % kPageBytes, 0U);
    }
  }
  EXPECT_EQ(path.channel.pages_written(), 1101U);
  EXPECT_TRUE(path.Same());

  path.channel.Forget();
  for (uint64_t page = 1200; page < 1400; page += 2) path.Fill(page, 0);
  path.Ship(CollectBy::kDirty);
  for (const auto& batch : path.channel.zeros) EXPECT_LE(batch.size(), 5U);
  EXPECT_EQ(path.channel.pages_zeroed(), 100U);
  EXPECT_TRUE(path.Same());
}

TEST(PageShipper, a_batch_is_at_most_a_mebibyte_so_that_limits_and_cancellations_work) {
  Path path({.transport = "fake", .largest_write = GiB(1), .batch = 64});
  for (uint64_t page = 0; page < kPages; ++page) path.Fill(page, 1);
  path.Ship(CollectBy::kPopulated);
  for (const auto& batch : path.channel.writes) {
    uint64_t bytes = 0;
    for (const PageWrite& write : batch) bytes += write.length;
    EXPECT_LE(bytes, MiB(1).value());
  }
  EXPECT_EQ(path.channel.writes.size(), kPages * kPageBytes >> 20) << "and long runs stay whole";
  EXPECT_TRUE(path.Same());
}

TEST(PageShipper, a_cancellation_stops_it_between_batches) {
  Path path;
  for (uint64_t page = 0; page < kPages; ++page) path.Fill(page, 1);
  path.channel.before = [&path](const char*) {
    path.cancel.Request("enough");
    return absl::OkStatus();
  };
  EXPECT_EQ(path.shipper.ShipCollected(0, path.Populated()), absl::CancelledError("enough"));
  EXPECT_EQ(path.channel.writes.size(), 1U);
}

TEST(PageShipper, an_error_of_the_channel_is_passed_on_as_it_is) {
  Path path;
  path.Fill(1, 1);
  path.channel.before = [](const char*) { return absl::UnavailableError("cable"); };
  EXPECT_EQ(path.shipper.ShipCollected(0, path.Populated()), absl::UnavailableError("cable"));
}

absl::StatusOr<PageChannels> NoOther(const absl::Status& why) {
  return why;
}

// Counted, not timed: at no moment more was sent than the rate had earned until that moment. How
// fast the machine is does not matter.
TEST(Precopy, rounds_send_no_more_than_the_rate_allows_and_the_final_one_does_not_care) {
  constexpr uint64_t kRate = 64 << 20;
  auto guest = *SyntheticGuest::Create({.regions = {{"ram", BytesIn(PageCount(kPages))}}});
  ASSERT_TRUE(guest->StartTracking().ok());
  std::memset(guest->memory()[0].address, 1, kPages * kPageBytes);
  std::vector<std::unique_ptr<PageChannel>> channels;
  std::atomic<uint64_t> calls{0};
  bool limited = true;
  Deadline start;
  for (int i = 0; i < 2; ++i) {
    auto channel = std::make_unique<FakePageChannel>();
    channel->before = [&calls, &limited, &start](const char* call) {
      if (std::string(call) != "Write" || !limited) return absl::OkStatus();
      const double sent =
          static_cast<double>((calls.fetch_add(1) + 1) << 20);  // every batch is 1 MiB
      const double earned = kRate * MillisecondsBetween(start, Clock::now()) / 1000 + 1;
      if (sent > earned) return absl::ResourceExhaustedError("over the rate");
      return absl::OkStatus();
    };
    channels.push_back(std::move(channel));
  }
  const Cancellation cancel;
  const MigrationOptions options{.bandwidth = ByteCount(kRate)};
  start = Clock::now();
  Precopy precopy(*guest, std::move(channels), NoOther, options, cancel);
  const auto first = precopy.Round({.by = CollectBy::kPopulated});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->pages, PageCount(kPages));
  EXPECT_FALSE(first->stopped);

  limited = false;
  std::memset(guest->memory()[0].address, 2, kPages * kPageBytes);
  const auto last = precopy.FinalRound();
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(last->pages, PageCount(kPages));
  EXPECT_TRUE(last->stopped);
  EXPECT_EQ(last->number, 2U);
}

TEST(Precopy, channels_sleep_while_the_rate_is_limited_and_poll_while_the_guest_stands_still) {
  for (const uint64_t rate : {uint64_t{0}, uint64_t{1} << 40}) {
    auto guest = *SyntheticGuest::Create({.regions = {{"ram", MiB(1)}}});
    ASSERT_TRUE(guest->StartTracking().ok());
    PageChannels channels;
    channels.push_back(std::make_unique<FakePageChannel>());
    const auto& waitings = static_cast<FakePageChannel*>(channels[0].get())->waitings;
    const Cancellation cancel;
    const MigrationOptions options{.bandwidth = ByteCount(rate)};
    Precopy precopy(*guest, std::move(channels), NoOther, options, cancel);
    ASSERT_TRUE(precopy.Round({.by = CollectBy::kPopulated}).ok());
    EXPECT_EQ(waitings.back(), rate == 0 ? Waiting::kAdapt : Waiting::kSleep);
    ASSERT_TRUE(precopy.FinalRound().ok());
    EXPECT_EQ(waitings.back(), Waiting::kPoll);
  }
}

TEST(Precopy, a_round_of_a_limited_precopy_can_be_cancelled_while_it_waits) {
  auto guest = *SyntheticGuest::Create({.regions = {{"ram", BytesIn(PageCount(kPages))}}});
  ASSERT_TRUE(guest->StartTracking().ok());
  std::memset(guest->memory()[0].address, 1, kPages * kPageBytes);
  std::vector<std::unique_ptr<PageChannel>> channels;
  channels.push_back(std::make_unique<FakePageChannel>());
  Cancellation cancel;
  const MigrationOptions options{.bandwidth = ByteCount(1)};  // years
  Precopy precopy(*guest, std::move(channels), NoOther, options, cancel);
  std::thread canceller([&] {
    const auto sent = [&precopy] {
      const auto pages = precopy.PagesByWorker();
      return std::any_of(pages.begin(), pages.end(), [](PageCount one) { return one.value() > 0; });
    };
    while (!sent()) std::this_thread::yield();
    cancel.Request("too slow");
  });
  const auto round = precopy.Round({.by = CollectBy::kPopulated});
  canceller.join();
  EXPECT_EQ(round.status(), absl::CancelledError("too slow"));
  EXPECT_EQ(precopy.wire_bytes(), ByteCount(0));
}

// The first channels land nothing before it is confirmed, and fail at the `nth` call of a round. In
// the round before everything had landed; then some pages changed, some became zero. Returns false
// when the round has no `nth` call.
bool FailsOver(int nth, bool is_long) {
  auto guest = *SyntheticGuest::Create({.regions = {{"ram", BytesIn(PageCount(kPages))}}});
  EXPECT_TRUE(guest->StartTracking().ok());
  std::byte* memory = guest->memory()[0].address;
  std::memset(memory, 1, kPages * kPageBytes);
  auto destination = *SyntheticDestination::Create(guest->description());
  std::atomic<int> calls{0};
  std::atomic<bool> failing{false};
  const auto channels = [&](bool good) {
    PageChannels made;
    for (int i = 0; i < 2; ++i) {
      auto channel = std::make_unique<FakePageChannel>(
          ChannelCapabilities{.transport = "fake", .largest_write = MiB(1)},
          destination->regions());
      channel->lands_at_flush = !good;
      channel->before = [&calls, &failing, good, nth](const char*) {
        if (good || !failing || calls.fetch_add(1) + 1 < nth) return absl::OkStatus();
        return absl::UnavailableError("cable");
      };
      made.push_back(std::move(channel));
    }
    return made;
  };
  int replaced = 0;
  const Cancellation cancel;
  Precopy precopy(
      *guest, channels(false),
      [&](const absl::Status& why) -> absl::StatusOr<PageChannels> {
        EXPECT_EQ(why, absl::UnavailableError("cable"));
        ++replaced;
        return channels(true);
      },
      {}, cancel);
  EXPECT_TRUE(precopy.Round({.by = CollectBy::kPopulated}).ok());
  for (uint64_t page = 0; page < kPages; page += 3) {
    std::memset(memory + page * kPageBytes, page % 2 == 0 ? 0 : 2, kPageBytes);
  }
  failing = true;
  const auto round = is_long ? precopy.Round({.is_long = true}) : precopy.FinalRound();
  EXPECT_TRUE(round.ok()) << round.status();
  if (replaced == 0) return false;
  EXPECT_EQ(replaced, 1);
  EXPECT_EQ(std::memcmp(memory, destination->regions()[0].address, kPages * kPageBytes), 0)
      << "failed at call " << nth;
  return round.ok();
}

TEST(Precopy, what_failed_channels_had_not_confirmed_is_sent_again_zeros_too) {
  for (const bool is_long : {false, true}) {
    int nth = 1;
    while (nth < 1000 && FailsOver(nth, is_long)) ++nth;
    EXPECT_GT(nth, 4) << is_long;
    EXPECT_LT(nth, 1000) << is_long;
  }
}

// A worker's collection fails in the midst of a slice while the channel of the other one does:
// which pages are not dirty any more and were not sent, nobody knows.
TEST(Precopy, other_channels_do_not_make_up_for_a_collection_that_failed) {
  auto guest = *SyntheticGuest::Create({.regions = {{"ram", BytesIn(PageCount(kPages))}}});
  std::atomic<bool> failing{false};
  std::atomic<int> collections{0};
  std::atomic<bool> cut{false};
  HookedSource source(*guest, [&](std::string_view call) -> absl::Status {
    if (call != "CollectDirty" || !failing || collections.fetch_add(1) > 0) return absl::OkStatus();
    while (!cut) std::this_thread::yield();
    return absl::InternalError("no such page");
  });
  ASSERT_TRUE(source.StartTracking().ok());
  std::memset(guest->memory()[0].address, 1, kPages * kPageBytes);
  PageChannels channels;
  for (int i = 0; i < 2; ++i) {
    auto channel = std::make_unique<FakePageChannel>();
    channel->before = [&failing, &cut](const char* call) {
      if (!failing || std::string_view(call) != "Write") return absl::OkStatus();
      cut = true;
      return absl::UnavailableError("cable");
    };
    channels.push_back(std::move(channel));
  }
  bool replaced = false;
  const Cancellation cancel;
  Precopy precopy(
      source, std::move(channels),
      [&](const absl::Status&) -> absl::StatusOr<PageChannels> {
        replaced = true;
        return absl::UnavailableError("no other");
      },
      {}, cancel);
  ASSERT_TRUE(precopy.Round({.by = CollectBy::kPopulated}).ok());
  std::memset(guest->memory()[0].address, 2, kPages * kPageBytes);
  failing = true;
  EXPECT_FALSE(precopy.Round({}).ok());
  EXPECT_FALSE(replaced);
}

TEST(Precopy, a_round_ends_with_every_channel_flushed_and_counts_what_was_sent) {
  auto guest = *SyntheticGuest::Create({.regions = {{"ram", MiB(16)}, {"rom", MiB(2)}}});
  ASSERT_TRUE(guest->StartTracking().ok());
  auto destination = *SyntheticDestination::Create(guest->description());
  std::memset(guest->memory()[0].address, 1, MiB(5).value());
  std::memset(guest->memory()[1].address, 2, kPageBytes);
  std::vector<std::unique_ptr<PageChannel>> channels;
  std::vector<FakePageChannel*> fakes;
  for (int i = 0; i < 3; ++i) {
    auto channel = std::make_unique<FakePageChannel>(
        ChannelCapabilities{.transport = "fake", .largest_write = MiB(1)}, destination->regions());
    fakes.push_back(channel.get());
    channels.push_back(std::move(channel));
  }
  const Cancellation cancel;
  Precopy precopy(*guest, std::move(channels), NoOther, {}, cancel);
  const auto round = precopy.Round({.by = CollectBy::kPopulated});
  ASSERT_TRUE(round.ok()) << round.status();
  EXPECT_EQ(round->pages, PageCount(5 * 256 + 1));
  EXPECT_EQ(round->bytes, BytesIn(round->pages));
  for (const FakePageChannel* fake : fakes) EXPECT_EQ(fake->flushes, 1U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(std::memcmp(guest->regions()[i].address, destination->regions()[i].address,
                          guest->regions()[i].description.size.value()),
              0);
  }
  std::memset(guest->memory()[0].address, 3, 10 * kPageBytes);
  EXPECT_EQ(precopy.CountDirty()->pages, PageCount(10));
  EXPECT_EQ(precopy.CountDirty()->pages, PageCount(10)) << "counting clears nothing";
}

}  // namespace
}  // namespace ramferry
