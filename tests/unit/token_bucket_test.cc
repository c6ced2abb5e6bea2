#include "base/token_bucket.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace ramferry {
namespace {

using namespace std::chrono_literals;

// Any point of a clock that only the test moves.
constexpr Deadline kStart = Deadline(1h);

double Milliseconds(Clock::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

TEST(TokenBucket, bytes_are_earned_at_the_rate_in_the_order_of_asking) {
  TokenBucket bucket(ByteCount(1'000'000), kStart);
  const auto first = bucket.Take(ByteCount(500'000), kStart);
  const auto second = bucket.Take(ByteCount(250'000), kStart);
  EXPECT_NEAR(Milliseconds(bucket.TimeUntil(first, kStart)), 500, 0.001);
  EXPECT_NEAR(Milliseconds(bucket.TimeUntil(second, kStart)), 750, 0.001);
  EXPECT_NEAR(Milliseconds(bucket.TimeUntil(second, kStart + 700ms)), 50, 0.001);
  EXPECT_EQ(bucket.TimeUntil(second, kStart + 751ms), Clock::duration::zero());
}

TEST(TokenBucket, an_idle_time_saves_up_ten_milliseconds_and_no_more) {
  TokenBucket bucket(ByteCount(1'000'000), kStart);
  const Deadline later = kStart + 1h;
  const auto ticket = bucket.Take(ByteCount(110'000), later);
  EXPECT_NEAR(Milliseconds(bucket.TimeUntil(ticket, later)), 100, 0.001);
}

TEST(TokenBucket, over_a_long_time_small_pieces_get_exactly_the_rate) {
  TokenBucket bucket(ByteCount(12'345'678), kStart);
  Deadline now = kStart;
  double sent = 0;
  while (now < kStart + 10s) {
    const auto ticket = bucket.Take(ByteCount(4096), now);
    now += bucket.TimeUntil(ticket, now);
    sent += 4096;
  }
  EXPECT_NEAR(sent / 10, 12'345'678, 12'345'678 * 0.002);
}

TEST(TokenBucket, a_new_rate_counts_for_those_who_wait_already) {
  TokenBucket bucket(ByteCount(1000), kStart);
  const auto ticket = bucket.Take(ByteCount(2000), kStart);
  bucket.SetRate(ByteCount(10'000), kStart + 1s);
  EXPECT_NEAR(Milliseconds(bucket.TimeUntil(ticket, kStart + 1s)), 100, 0.001);
  bucket.SetRate(ByteCount(0), kStart + 1s);
  EXPECT_EQ(bucket.TimeUntil(ticket, kStart + 1s), Clock::duration::zero());
  bucket.SetRate(ByteCount(1000), kStart + 2s);
  EXPECT_EQ(bucket.TimeUntil(ticket, kStart + 2s), Clock::duration::zero());
}

TEST(TokenBucket, lifting_the_limit_wakes_whoever_sleeps) {
  TokenBucket bucket(ByteCount(1));
  std::thread sleeper([&] { EXPECT_TRUE(bucket.Acquire(GiB(1)).ok()); });
  std::this_thread::sleep_for(5ms);
  bucket.SetRate(ByteCount(0));
  sleeper.join();
}

TEST(TokenBucket, a_sleeper_is_cancelled_with_the_reason) {
  TokenBucket bucket(ByteCount(1));
  Cancellation cancel;
  std::thread sleeper([&] {
    const absl::Status status = bucket.Acquire(GiB(1), &cancel);
    EXPECT_TRUE(absl::IsCancelled(status));
    EXPECT_EQ(status.message(), "enough");
  });
  cancel.Request("enough");
  sleeper.join();
}

}  // namespace
}  // namespace ramferry
