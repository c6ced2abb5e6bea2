// The promises of the RDMA page channel, against two devices that do only what the test lets them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/unit/rdma_pair.h"

namespace ramferry::rdma {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(RdmaChannelTest, pages_land_where_they_belong) {
  Open();
  for (uint64_t page = 0; page < 100; ++page) source_.Fill(page, static_cast<int>(page + 1));
  const std::vector<PageWrite> writes = {source_.Write(3), source_.Write(7, 5),
                                         source_.Write(80, 20)};
  ASSERT_TRUE(channel().Write(writes).ok());
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_TRUE(Same(3) && Same(7, 5) && Same(80, 20));
  EXPECT_EQ(destination_.page(4)[0], std::byte{0});
  EXPECT_EQ(channel().stats().payload.value(), 26 * kPageBytes);
}

// The device reports every write as done; nothing has arrived. Whoever trusts it, fails here.
TEST_F(RdmaChannelTest, flush_does_not_trust_local_completions) {
  Open();
  source_.Fill(0, 1);
  const PageWrite first = source_.Write(0);
  ASSERT_TRUE(channel().Write({&first, 1}).ok());  // opens the piece
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());

  source_.Fill(0, 2);
  link().on_wait = [this] { link().CompleteLocally(); };
  ASSERT_TRUE(channel().Write({&first, 1}).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(channel().Flush(In(milliseconds(50)))));
  EXPECT_FALSE(Same(0));
}

TEST_F(RdmaChannelTest, flush_returns_only_after_the_pages_are_visible) {
  Open();
  source_.Fill(0, 1);
  const PageWrite write = source_.Write(0);
  ASSERT_TRUE(channel().Write({&write, 1}).ok());
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  source_.Fill(0, 2);
  ASSERT_TRUE(channel().Write({&write, 1}).ok());
  int waits = 0;
  link().on_wait = [&] {
    link().CompleteLocally();
    if (++waits >= 5) DeliverAndServe(*pairs_[0]);
  };
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_GE(waits, 5);
  EXPECT_TRUE(Same(0));
}

TEST_F(RdmaChannelTest, one_doorbell_and_one_signal_a_chain) {
  Open();
  std::vector<PageWrite> writes;
  for (uint64_t page = 0; page < 32; page += 2) writes.push_back(source_.Write(page));
  ASSERT_TRUE(channel().Write({writes.data(), 1}).ok());  // opens the piece
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  const size_t doorbells = link().doorbells;
  const size_t signals = link().signals;
  ASSERT_TRUE(channel().Write(writes).ok());  // 16: a quarter of the queue of 64
  EXPECT_EQ(link().doorbells, doorbells + 1);
  EXPECT_EQ(link().signals, signals + 1);
}

TEST_F(RdmaChannelTest, adjacent_writes_become_one_request) {
  Open();
  source_.Fill(0, 1);
  const std::vector<PageWrite> writes = {source_.Write(0), source_.Write(1), source_.Write(2, 6),
                                         source_.Write(9)};
  ASSERT_TRUE(channel().Write(writes).ok());
  EXPECT_THAT(link().write_lengths, ElementsAre(8 * kPageBytes, kPageBytes));
}

TEST_F(RdmaChannelTest, no_request_is_larger_than_the_device_takes) {
  Open();
  pairs_.clear();
  table_.reset();
  auto source = std::make_unique<FakeLink>(destination_memory_);
  source->limits_.largest_message = 16384;
  auto channel = RdmaChannel::Create(nullptr, std::move(source), source_memory_);
  ASSERT_TRUE(channel.ok());
  EXPECT_EQ((*channel)->capabilities().largest_write.value(), 16384U);
}

TEST_F(RdmaChannelTest, the_send_queue_is_never_overrun) {
  Open();
  link().hold_local_completions = true;
  std::vector<PageWrite> writes;
  for (uint64_t page = 0; page < 2048; page += 2) {
    source_.Fill(page, static_cast<int>(page % 255 + 1));
    writes.push_back(source_.Write(page));
  }
  ASSERT_TRUE(channel().Write(writes).ok());
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_LE(link().most_outstanding, link().limits_.send_depth);
  for (uint64_t page = 0; page < 2048; page += 2) ASSERT_TRUE(Same(page)) << page;
}

TEST_F(RdmaChannelTest, a_full_queue_is_counted) {
  Open();
  std::vector<PageWrite> writes;
  for (uint64_t page = 0; page < 400; page += 2) writes.push_back(source_.Write(page));
  ASSERT_TRUE(channel().Write({writes.data(), 1}).ok());  // opens the piece
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_EQ(channel().stats().full, 0U);
  link().hold_local_completions = true;
  ASSERT_TRUE(channel().Write(writes).ok());  // 200 into a queue of 64
  EXPECT_GE(channel().stats().full, 2U);
}

TEST_F(RdmaChannelTest, under_a_rate_limit_it_sleeps_at_once) {
  Open();
  channel().SetWaiting(Waiting::kSleep);
  const size_t polls = link().polls;
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_GE(link().waits, 1U);
  EXPECT_LE(link().polls, polls + 4);  // before and after it slept
}

TEST_F(RdmaChannelTest, while_the_guest_stands_still_it_polls_and_does_not_sleep) {
  Open();
  channel().SetWaiting(Waiting::kPoll);
  const size_t polls = link().polls;
  link().on_poll = [&] {
    if (link().polls == polls + 1000) DeliverAndServe(*pairs_[0]);
  };
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_EQ(link().waits, 0U);
}

TEST_F(RdmaChannelTest, a_peer_that_says_nothing_is_slept_for_in_the_end) {
  Open();
  channel().SetWaiting(Waiting::kPoll);
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok()) << "the double answers who sleeps";
  EXPECT_EQ(link().waits, 1U);
}

// Before the guest is touched: a way on which messages pass, but no writes.
TEST_F(RdmaChannelTest, writes_that_do_not_arrive_are_found_out_before_pages_are_sent) {
  Open(2);
  const Nonce nonce{std::byte{1}};
  const auto prove = [&](Pair& pair) {
    Welcome welcome{};
    welcome.proof_rkey = pair.service->proof_place().rkey;
    welcome.proof_address = pair.service->proof_place().address;
    pair.channel->ProveAtFirstFlush(welcome, nonce);
    return pair.channel->Flush(In(seconds(10)));
  };
  EXPECT_TRUE(prove(*pairs_[0]).ok());
  pairs_[1]->source->lose_writes = true;
  EXPECT_THAT(std::string(prove(*pairs_[1]).message()), HasSubstr("did not arrive"));
}

TEST_F(RdmaChannelTest, a_write_after_zeros_to_the_same_page_wins) {
  Open();
  source_.Fill(5, 9);
  const PageWrite write = source_.Write(5);
  ASSERT_TRUE(channel().Write({&write, 1}).ok());
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  // Writes arrive the moment they are posted; the destination's CPU is slow to clear pages.
  link().deliver_at_once = true;
  const PageZero zero{0, 4 * kPageBytes, 4 * kPageBytes};
  ASSERT_TRUE(channel().WriteZeros({&zero, 1}).ok());
  ASSERT_TRUE(channel().Write({&write, 1}).ok());
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_TRUE(Same(5));
}

TEST_F(RdmaChannelTest, zeros_after_a_write_to_the_same_page_win) {
  Open();
  source_.Fill(5, 9);
  const PageWrite write = source_.Write(5);
  const PageZero zero{0, 5 * kPageBytes, kPageBytes};
  ASSERT_TRUE(channel().Write({&write, 1}).ok());
  ASSERT_TRUE(channel().WriteZeros({&zero, 1}).ok());
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_EQ(destination_.page(5)[0], std::byte{0});
  EXPECT_EQ(destination_.page(5)[kPageBytes - 1], std::byte{0});
}

TEST_F(RdmaChannelTest, many_zeros_never_find_the_receiver_unready) {
  Open();
  std::vector<PageZero> zeros;
  for (uint64_t page = 0; page < 4000; page += 2)
    zeros.push_back({0, page * kPageBytes, kPageBytes});
  std::memset(destination_.page(0), 1, 4000 * kPageBytes);
  link().deliver_at_once = true;
  ASSERT_TRUE(channel().WriteZeros(zeros).ok());
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_EQ(pairs_[0]->destination->receiver_not_ready, 0U);
  EXPECT_EQ(destination_.page(3998)[0], std::byte{0});
  EXPECT_EQ(destination_.page(3999)[0], std::byte{1});
}

TEST_F(RdmaChannelTest, zeros_of_many_calls_share_a_message) {
  Open();
  std::memset(destination_.page(0), 1, 200 * kPageBytes);
  const size_t doorbells = link().doorbells;
  // 40 pages apart from each other, and 20 in a row at the end: 41 ranges.
  for (uint64_t page = 0; page < 100; page += page < 80 ? 2 : 1) {
    const PageZero zero{0, page * kPageBytes, kPageBytes};
    ASSERT_TRUE(channel().WriteZeros({&zero, 1}).ok());
  }
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_EQ(link().doorbells, doorbells + 4);  // three of zeros, one to flush
  for (uint64_t page = 0; page < 101; ++page) {
    const bool zero = page < 100 && (page >= 80 || page % 2 == 0);
    EXPECT_EQ(destination_.page(page)[0], std::byte{zero ? uint8_t{0} : uint8_t{1}}) << page;
  }
}

TEST_F(RdmaChannelTest, a_refused_write_kills_the_channel_with_words) {
  Open();
  source_.Fill(0, 1);
  const PageWrite write = source_.Write(0);
  ASSERT_TRUE(channel().Write({&write, 1}).ok());
  landing_->Close();  // its keys are good for nothing now
  absl::Status status = channel().Write({&write, 1});
  if (status.ok()) status = channel().Flush(In(seconds(10)));
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("refused a write"));
  EXPECT_EQ(channel().Write({&write, 1}), status);
  EXPECT_EQ(channel().Flush(In(seconds(1))), status);
}

TEST_F(RdmaChannelTest, a_port_that_goes_down_is_named) {
  Open();
  source_.Fill(0, 1);
  const PageWrite write = source_.Write(0);
  ASSERT_TRUE(channel().Write({&write, 1}).ok());
  link().on_wait = [this] { link().Interrupt(absl::UnavailableError("port 1 went down")); };
  const absl::Status status = channel().Flush(In(seconds(10)));
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("port 1 went down"));
}

TEST_F(RdmaChannelTest, flushed_requests_wait_for_the_reason) {
  Open();
  source_.Fill(0, 1);
  const PageWrite write = source_.Write(0);
  ASSERT_TRUE(channel().Write({&write, 1}).ok());
  link().BreakQueue();
  link().on_wait = [this] { link().Interrupt(absl::UnavailableError("the peer hung up")); };
  const absl::Status status = channel().Flush(In(seconds(10)));
  EXPECT_THAT(std::string(status.message()), HasSubstr("the peer hung up"));
}

TEST_F(RdmaChannelTest, the_destination_refuses_ranges_outside_the_guest) {
  Open();
  const auto refused = [&](WireRange range) {
    return !landing_->Register(9, range).ok() && !landing_->Clear(range).ok();
  };
  EXPECT_TRUE(refused({1, 0, 0, kPageBytes}));                             // no such region
  EXPECT_TRUE(refused({0, 0, kGuestBytes, kPageBytes}));                   // behind the end
  EXPECT_TRUE(refused({0, 0, kGuestBytes - kPageBytes, 2 * kPageBytes}));  // over the end
  EXPECT_TRUE(refused({0, 0, 0, UINT64_MAX - kPageBytes + 1}));            // wraps
  EXPECT_TRUE(refused({0, 0, 100, kPageBytes}));                           // not a page
  EXPECT_TRUE(refused({0, 0, 0, 0}));
  EXPECT_FALSE(landing_->Register(kMostPieces, {0, 0, 0, kPageBytes}).ok());
}

TEST_F(RdmaChannelTest, the_destination_keeps_to_its_own_budget) {
  Landing landing({&destination_.region, 1}, destination_memory_, MiB(2));
  ASSERT_TRUE(landing.Register(1, {0, 0, 0, MiB(1).value()}).ok());
  EXPECT_FALSE(landing.Register(1, {0, 0, MiB(4).value(), MiB(1).value()}).ok());  // taken
  EXPECT_TRUE(absl::IsResourceExhausted(
      landing.Register(2, {0, 0, MiB(1).value(), MiB(2).value()}).status()));
  ASSERT_TRUE(landing.Release(1).ok());
  EXPECT_TRUE(landing.Register(2, {0, 0, MiB(1).value(), MiB(2).value()}).ok());
}

TEST_F(RdmaChannelTest, the_source_hears_why_the_destination_refused) {
  Open();
  landing_ = nullptr;
  Landing tight({&destination_.region, 1}, destination_memory_, ByteCount(kPageBytes));
  auto destination = std::make_unique<FakeLink>(source_memory_);
  FakeLink* const raw = destination.get();
  raw->ConnectTo(link());
  raw->deliver_at_once = true;
  link().ConnectTo(*raw);
  pairs_[0]->service = *ChannelService::Create(std::move(destination), destination_memory_, tight);
  source_.Fill(0, 1);
  const PageWrite write = source_.Write(0);
  const absl::Status status = channel().Write({&write, 1});
  EXPECT_THAT(std::string(status.message()), HasSubstr("pin budget"));
  pairs_.clear();
}

// A write with immediate data takes a receive, in which an old message still is.
TEST_F(RdmaChannelTest, what_is_no_message_is_refused_on_both_sides) {
  Open(2);
  const std::vector<std::byte> bytes(sizeof(Message));
  pairs_[0]->destination->Arrive(bytes, IBV_WC_RECV_RDMA_WITH_IMM, IBV_WC_WITH_IMM);
  bool goodbye = false;
  EXPECT_THAT(std::string(pairs_[0]->service->ServeSome(goodbye).message()),
              HasSubstr("no RDMA message"));
  Pair& other = *pairs_[1];
  ASSERT_TRUE(other.channel->Flush(In(seconds(10))).ok());
  other.source->on_wait = [&] {  // the answer of before once more, so to speak
    other.source->Arrive(bytes, IBV_WC_RECV_RDMA_WITH_IMM, IBV_WC_WITH_IMM);
  };
  EXPECT_THAT(std::string(other.channel->Flush(In(seconds(10))).message()),
              HasSubstr("no RDMA message"));
}

TEST_F(RdmaChannelTest, a_finished_channel_says_goodbye) {
  Open();
  Pair& pair = *pairs_[0];
  pair.source->deliver_at_once = true;
  pair.channel.reset();
  EXPECT_TRUE(pair.service->ServeSome(pair.goodbye).ok());
  EXPECT_TRUE(pair.goodbye);
}

TEST(RdmaWire, only_who_knows_the_token_is_let_in) {
  const std::string token(32, 'k');
  const std::string other(32, 'x');
  const auto greeting = MakeGreeting(token);
  ASSERT_TRUE(greeting.ok());
  EXPECT_TRUE(Proves(*greeting, token));
  EXPECT_FALSE(Proves(*greeting, other));
  const Welcome welcome = MakeWelcome(*greeting, token);
  const std::span bytes(reinterpret_cast<const std::byte*>(&welcome), sizeof welcome);
  EXPECT_TRUE(ParseWelcome(bytes, *greeting, token).ok());
  EXPECT_TRUE(absl::IsUnauthenticated(ParseWelcome(bytes, *greeting, other).status()));
  EXPECT_FALSE(ParseGreeting(bytes.first(20)).ok());
}

}  // namespace
}  // namespace ramferry::rdma
