// When a guest counts as one that will not get under the downtime target, and what is done then.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/policy/convergence_policy.h"
#include "engine/policy/switchover_policy.h"

namespace ramferry {
namespace {

// A round of half a second in which 100 MiB were sent.
RoundReport Round(uint32_t number, double predicted_ms, double pages_a_second = 30'000) {
  return {.number = number,
          .bytes = MiB(50),
          .ms = 500,
          .dirty_rate = pages_a_second,
          .predicted_downtime_ms = predicted_ms};
}

// The steps of rounds with these predictions, and after which one it was detected (0: never).
struct Course {
  std::vector<NextStep> steps;
  uint32_t detected = 0;
  std::vector<double> shares;
};
Course Follow(ConvergencePolicy& policy, const std::vector<double>& predictions,
              bool at_most = true) {
  Course course;
  for (const double ms : predictions) {
    const auto number = static_cast<uint32_t>(course.steps.size()) + 1;
    const ConvergenceDecision decision = policy.Decide(Round(number, ms), at_most);
    course.steps.push_back(decision.step);
    course.shares.push_back(decision.cpu_share);
    if (decision.detected) course.detected = number;
  }
  return course;
}

TEST(Convergence, target_met_means_stop) {
  ConvergencePolicy policy({.target_ms = 300});
  const Course course = Follow(policy, {900, 400, 299});
  EXPECT_EQ(course.steps.back(), NextStep::kStop);
  EXPECT_EQ(course.detected, 0U);
}

TEST(Convergence, three_rounds_without_gain_are_detected_and_given_up) {
  ConvergencePolicy policy({.target_ms = 300, .choice = NotConverging::kGiveUp});
  const Course course = Follow(policy, {900, 890, 910, 880});
  EXPECT_EQ(course.detected, 4U);
  EXPECT_EQ(course.steps, (std::vector<NextStep>{NextStep::kRound, NextStep::kRound,
                                                 NextStep::kRound, NextStep::kGiveUp}));
}

TEST(Convergence, slow_gains_are_gains) {
  ConvergencePolicy policy({.target_ms = 300});
  const Course course = Follow(policy, {900, 840, 790, 730, 690, 650, 600, 560, 500, 460, 420});
  EXPECT_EQ(course.detected, 0U);
}

TEST(Convergence, short_rounds_do_not_condemn_a_guest_before_a_second_has_passed) {
  ConvergencePolicy policy({.target_ms = 10});
  for (uint32_t number = 1; number <= 29; ++number) {
    RoundReport round = Round(number, 100);
    round.ms = 30;
    EXPECT_EQ(policy.Decide(round, true).step, NextStep::kRound) << number;
  }
}

TEST(Convergence, while_the_rate_may_still_go_up_nothing_is_lost) {
  ConvergencePolicy policy({.target_ms = 300});
  EXPECT_EQ(Follow(policy, std::vector<double>(20, 900), /*at_most=*/false).detected, 0U);
}

TEST(Convergence, stops_all_the_same_when_that_was_chosen) {
  ConvergencePolicy policy({.target_ms = 300, .choice = NotConverging::kStopAnyway});
  EXPECT_EQ(Follow(policy, {900, 900, 900, 900}).steps.back(), NextStep::kStopAnyway);
}

TEST(Convergence, waits_beyond_the_last_round_until_the_guest_writes_less) {
  ConvergencePolicy policy({.target_ms = 300, .max_rounds = 5, .choice = NotConverging::kWait});
  std::vector<double> predictions(50, 900);
  predictions.push_back(250);
  const Course course = Follow(policy, predictions);
  EXPECT_EQ(course.detected, 4U);
  EXPECT_EQ(course.steps[49], NextStep::kRound);
  EXPECT_EQ(course.steps[50], NextStep::kStop);
}

TEST(Convergence, the_last_round_decides_even_of_a_guest_that_gains) {
  ConvergencePolicy policy({.target_ms = 300, .max_rounds = 2});
  EXPECT_EQ(Follow(policy, {900, 500}).steps.back(), NextStep::kGiveUp);
}

// 30,000 pages a second are 117 MiB/s, and 100 MiB/s are sent.
TEST(Convergence, throttles_by_what_the_figures_ask_for_and_more_only_if_that_gains_nothing) {
  ConvergencePolicy policy({.target_ms = 300, .choice = NotConverging::kThrottle});
  const Course course = Follow(policy, {900, 900, 900, 900, 500, 400, 400, 250});
  EXPECT_EQ(course.detected, 4U);
  EXPECT_EQ(course.steps,
            (std::vector<NextStep>{NextStep::kRound, NextStep::kRound, NextStep::kRound,
                                   NextStep::kThrottle, NextStep::kRound, NextStep::kRound,
                                   NextStep::kThrottle, NextStep::kStop}));
  EXPECT_DOUBLE_EQ(course.shares[2], 1);
  EXPECT_NEAR(course.shares[3], 0.75 * 100 / 117.2, 0.01);
  EXPECT_DOUBLE_EQ(course.shares[5], course.shares[3]);
  EXPECT_LT(course.shares[6], course.shares[5]);
}

TEST(Convergence, never_takes_all_the_time_of_a_guest_and_gives_up_in_the_end) {
  ConvergencePolicy policy(
      {.target_ms = 300, .max_rounds = 30, .choice = NotConverging::kThrottle});
  const Course course = Follow(policy, std::vector<double>(12, 5000));
  EXPECT_DOUBLE_EQ(course.shares.back(), ThrottlePolicy::kLeastShare);
  EXPECT_EQ(course.steps.back(), NextStep::kGiveUp) << "long before the last round";
  // The least was tried.
  const auto given_up = std::find(course.steps.begin(), course.steps.end(), NextStep::kGiveUp);
  const auto least =
      std::find(course.shares.begin(), course.shares.end(), ThrottlePolicy::kLeastShare);
  EXPECT_LT(least - course.shares.begin(), given_up - course.steps.begin());
}

TEST(Convergence, description_has_the_numbers) {
  const std::string text = DescribeDirtying(Round(4, 900), 300);
  for (const char* number :
       {"30000 pages", "117.2 MiB", "100.0 MiB", "4 rounds", "900 ms", "300 ms"}) {
    EXPECT_NE(text.find(number), std::string::npos) << number << " in: " << text;
  }
}

SwitchoverLook Look(double pages_ms, double rate, double ms = 10) {
  return {
      .predicted_ms = 20 + pages_ms, .fixed_ms = 20, .dirty_rate = rate, .bytes = MiB(1), .ms = ms};
}

TEST(Switchover, a_guest_that_hardly_writes_is_stopped_at_once) {
  SwitchoverPolicy policy(100, GiB(1));
  EXPECT_EQ(policy.Decide(Look(1, 100)), SwitchoverStep::kStop);
}

TEST(Switchover, short_rounds_go_on_while_each_takes_off_a_quarter) {
  SwitchoverPolicy policy(1000, GiB(1));
  EXPECT_EQ(policy.Decide(Look(200, 1000)), SwitchoverStep::kRound);
  EXPECT_EQ(policy.Decide(Look(100, 1000)), SwitchoverStep::kRound);
  EXPECT_EQ(policy.Decide(Look(60, 1000)), SwitchoverStep::kRound);
  EXPECT_EQ(policy.Decide(Look(55, 1000)), SwitchoverStep::kStop);
}

TEST(Switchover, short_rounds_cost_at_most_an_eighth_of_what_was_sent) {
  SwitchoverPolicy policy(1000, MiB(16));
  EXPECT_EQ(policy.Decide(Look(200, 1000)), SwitchoverStep::kRound);
  EXPECT_EQ(policy.Decide(Look(100, 1000)), SwitchoverStep::kRound);
  EXPECT_EQ(policy.Decide(Look(50, 1000)), SwitchoverStep::kStop);  // 2 MiB are spent
}

TEST(Switchover, a_burst_is_let_pass) {
  SwitchoverPolicy policy(1000, GiB(1));
  EXPECT_EQ(policy.Decide(Look(50, 4000)), SwitchoverStep::kRound);
  EXPECT_EQ(policy.Decide(Look(48, 4000)), SwitchoverStep::kWatch);
  EXPECT_EQ(policy.Decide(Look(52, 4200)), SwitchoverStep::kWatch);
  EXPECT_EQ(policy.Decide(Look(45, 1800)), SwitchoverStep::kStop);  // a low point
}

TEST(Switchover, a_burst_without_end_is_watched_for_half_a_second) {
  SwitchoverPolicy policy(1000, GiB(10));
  EXPECT_EQ(policy.Decide(Look(50, 4000)), SwitchoverStep::kRound);
  double watched = 0;
  while (policy.Decide(Look(50, 4000)) == SwitchoverStep::kWatch) watched += 10;
  EXPECT_DOUBLE_EQ(watched, 490);
}

}  // namespace
}  // namespace ramferry
