// Rounds and rates come out as the algorithm of the paper says (NSDI 2005, section 5.4), on a clock
// that only the test moves.
#include <gtest/gtest.h>

#include <vector>

#include "base/token_bucket.h"
#include "engine/policy/rate_policy.h"

namespace ramferry {
namespace {

using std::chrono::seconds;

constexpr double kMegabit = 1e6 / 8;

double Megabits(ByteCount rate) {
  return static_cast<double>(rate.value()) / kMegabit;
}

// A guest that makes `dirtied` megabits a second dirty, up to a working set of `most` megabits, and
// a link that sends at exactly the rate; time is counted, not waited for.
struct Guest {
  double dirtied;
  double most;
};

RoundReport RunRound(const Guest& guest, double to_send, ByteCount rate, uint32_t number) {
  TokenBucket bucket(rate, Deadline(seconds(1)));
  const auto ticket =
      bucket.Take(ByteCount(static_cast<uint64_t>(to_send * kMegabit)), Deadline(seconds(1)));
  const double elapsed =
      std::chrono::duration<double>(bucket.TimeUntil(ticket, Deadline(seconds(1)))).count();
  const double dirty = std::min(guest.most, guest.dirtied * elapsed);
  const auto pages = static_cast<uint64_t>(dirty * kMegabit / kPageBytes);
  return {.number = number,
          .bytes = ByteCount(static_cast<uint64_t>(to_send * kMegabit)),
          .ms = elapsed * 1000,
          .dirty_pages = PageCount(pages),
          .dirty_rate = elapsed > 0 ? static_cast<double>(pages) / elapsed : 0};
}

// The rates of `rounds` rounds of a guest of `memory` megabits.
std::vector<double> Rates(RatePolicy& policy, const Guest& guest, double memory, int rounds) {
  std::vector<double> rates;
  double to_send = memory;
  for (int i = 0; i < rounds; ++i) {
    rates.push_back(Megabits(policy.rate()));
    const RoundReport round = RunRound(guest, to_send, policy.rate(), static_cast<uint32_t>(i) + 1);
    policy.AddRound(round);
    to_send = static_cast<double>(BytesIn(round.dirty_pages).value()) / kMegabit;
  }
  return rates;
}

// The paper: 100 Mbit/s at first, what the guest dirtied plus 50 after that, at most 500.
const RateLimits kPaper{.least = Mbit(100), .step = Mbit(50), .most = Mbit(500)};

TEST(RatePolicy, paper_example_follows_a_steady_guest_fifty_megabits_above_it) {
  RatePolicy policy(kPaper);
  const auto rates = Rates(policy, {.dirtied = 120, .most = 1e9}, 6400, 4);
  EXPECT_DOUBLE_EQ(rates[0], 100);
  for (size_t i = 1; i < rates.size(); ++i) EXPECT_NEAR(rates[i], 170, 0.5) << i;
  EXPECT_FALSE(policy.at_most());
}

TEST(RatePolicy, paper_example_goes_up_fifty_a_round_for_a_working_set_that_is_always_dirty) {
  RatePolicy policy(kPaper);
  // 200 megabits, all of it dirty after each round: a round at rate r lasts 200 / r, so that the
  // guest seems to write at r.
  const auto rates = Rates(policy, {.dirtied = 1e9, .most = 200}, 200, 10);
  const std::vector<double> expected = {100, 150, 200, 250, 300, 350, 400, 450, 500, 500};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(rates[i], expected[i], 1) << i;
  EXPECT_TRUE(policy.at_most());
}

TEST(RatePolicy, is_capped_at_the_maximum_and_comes_down_again_with_the_guest) {
  RatePolicy policy(kPaper);
  policy.AddRound({.dirty_rate = 900 * kMegabit / kPageBytes});
  EXPECT_DOUBLE_EQ(Megabits(policy.rate()), 500);
  EXPECT_NEAR(Megabits(policy.wanted()), 950, 0.1);
  EXPECT_TRUE(policy.at_most());
  policy.AddRound({.dirty_rate = 10 * kMegabit / kPageBytes});
  EXPECT_DOUBLE_EQ(Megabits(policy.rate()), 100);  // not 60: the minimum
  EXPECT_FALSE(policy.at_most());
}

TEST(RatePolicy, without_a_minimum_every_round_goes_at_the_maximum) {
  RatePolicy limited({.most = Mbit(500)});
  limited.AddRound({.dirty_rate = 1});
  EXPECT_EQ(limited.rate(), Mbit(500));
  EXPECT_TRUE(limited.at_most());
  RatePolicy unlimited({});
  unlimited.AddRound({.dirty_rate = 1e6});
  EXPECT_EQ(unlimited.rate(), ByteCount(0));
  EXPECT_TRUE(unlimited.at_most());
}

TEST(RatePolicy, without_a_maximum_it_follows_any_guest_and_never_is_at_its_most) {
  RatePolicy policy({.least = Mbit(100), .step = Mbit(50)});
  policy.AddRound({.dirty_rate = 90'000 * kMegabit / kPageBytes});
  EXPECT_NEAR(Megabits(policy.rate()), 90'050, 1);
  EXPECT_FALSE(policy.at_most());
}

TEST(RatePolicy, step_grows_with_the_range_so_that_eight_rounds_cross_it) {
  EXPECT_EQ(DefaultStep({.least = Mbit(100), .most = Mbit(500)}), Mbit(50));
  EXPECT_EQ(DefaultStep({.least = Mbit(1000), .most = Mbit(81'000)}), Mbit(10'000));
  EXPECT_EQ(DefaultStep({.least = Mbit(100)}), Mbit(50));
}

TEST(RatePolicy, a_minimum_over_the_maximum_is_the_maximum) {
  EXPECT_EQ(RatePolicy({.least = Mbit(900), .most = Mbit(500)}).rate(), Mbit(500));
}

}  // namespace
}  // namespace ramferry
