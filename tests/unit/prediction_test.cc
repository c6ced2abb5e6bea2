// A migration on a virtual clock does what the engine does, and what comes out can be worked out by
// hand.
#include "engine/prediction/prediction.h"

#include <cmath>
#include <string>

#include "engine/policy/rate_policy.h"
#include "engine/prediction/round_forecast.h"
#include "engine/prediction/synthetic_trace.h"
#include "engine/prediction/virtual_migration.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ramferry {
namespace {

using std::chrono::milliseconds;

constexpr double kMiB = 1 << 20;

// One zone of `memory` MiB that is all contents, written page after page at `rate` MiB/s, in a
// circle of `set` MiB.
DirtyTrace Sequential(uint64_t memory, uint64_t set, double rate) {
  const auto workload = ParseSyntheticWorkload(
      "memory=" + std::to_string(memory) + "M,working-set=" + std::to_string(set) +
      "M,rate=" + std::to_string(rate * kMiB / kPageBytes) + ",pattern=sequential");
  EXPECT_TRUE(workload.ok()) << workload.status();
  DirtyTrace trace = TraceOf(*workload);
  // One zone, so that a round collects everything at its beginning.
  DirtyZone whole{.written = std::vector<double>(trace.intervals_ms.size(), 0)};
  for (const DirtyZone& zone : trace.zones) {
    whole.memory += zone.memory;
    whole.contents += zone.contents;
    for (size_t i = 0; i < whole.written.size(); ++i) whole.written[i] += zone.written[i];
  }
  trace.zones = {whole};
  return trace;
}

// A link that takes nothing but for pages.
VirtualLink Plain(double mib_per_second) {
  return {.bytes_per_second = mib_per_second * kMiB, .page_overhead = 0, .round_ms = 0};
}

TEST(VirtualMigration, rounds_shrink_by_the_ratio_of_writing_to_sending) {
  const DirtyTrace trace = Sequential(1024, 512, 25);
  VirtualMigration migration(trace, Plain(100));
  EXPECT_NEAR(migration.dirty_pages(), 1024 * 256, 1);
  // 10.24 s; what was written meanwhile is 256 MiB; then 64, 16, 4.
  double expected_ms = 10240;
  for (const double left : {256.0, 64.0, 16.0, 4.0}) {
    const RoundReport round = migration.Round();
    EXPECT_NEAR(round.ms, expected_ms, 0.01 * expected_ms);
    EXPECT_NEAR(static_cast<double>(round.dirty_pages.value()), left * 256, 0.02 * left * 256);
    expected_ms = left / 100 * 1000;
  }
  EXPECT_NEAR(migration.bytes_sent(), (1024 + 256 + 64 + 16) * kMiB, 5 * kMiB);
}

TEST(VirtualMigration, nothing_becomes_dirty_while_the_guest_stands_still) {
  const DirtyTrace trace = Sequential(256, 64, 50);
  VirtualMigration migration(trace, Plain(100));
  (void)migration.Round();
  const double left = migration.dirty_pages();
  EXPECT_NEAR(migration.SendStopped(), left / 256 / 100 * 1000, 1e-6);
  EXPECT_EQ(migration.dirty_pages(), 0);
}

TEST(VirtualMigration, limit_of_a_round_holds_and_the_link_is_a_limit_too) {
  const DirtyTrace trace = Sequential(100, 1, 0);
  VirtualMigration slow(trace, Plain(100));
  EXPECT_NEAR(slow.Round({.limit = MiB(10)}).ms, 10'000, 1);
  VirtualMigration fast(trace, Plain(100));
  EXPECT_NEAR(fast.Round({.limit = MiB(1000)}).ms, 1000, 1);
}

// Memory that is sent first has been written for longer when the round ends.
TEST(VirtualMigration, where_the_writing_is_counts) {
  DirtyTrace trace = Sequential(512, 64, 10);
  DirtyZone idle = trace.zones[0];
  idle.written.assign(idle.written.size(), 0);
  DirtyTrace early = trace;
  early.zones.push_back(idle);
  DirtyTrace late = trace;
  late.zones.insert(late.zones.begin(), idle);
  const double after_early =
      static_cast<double>(VirtualMigration(early, Plain(1000)).Round().dirty_pages.value());
  const double after_late =
      static_cast<double>(VirtualMigration(late, Plain(1000)).Round().dirty_pages.value());
  EXPECT_NEAR(after_early / 256, 10.24, 0.1);
  EXPECT_NEAR(after_late / 256, 5.12, 0.1);
}

TEST(VirtualMigration, busy_times_come_and_go) {
  DirtyTrace trace = Sequential(1000, 900, 10);
  trace.activity = {{.ms = 1000, .busy = 2}, {.ms = 1000, .busy = 0}};
  VirtualMigration migration(trace, Plain(1e6));
  (void)migration.Round();  // a millisecond
  const auto after = [&migration](double ms) {
    migration.Wait(ms - migration.now_ms());
    return migration.dirty_pages() / 256;
  };
  EXPECT_NEAR(after(500), 10, 0.2);
  EXPECT_NEAR(after(1000), 20, 0.3);
  EXPECT_NEAR(after(1990), 20, 0.3);
  EXPECT_NEAR(after(2500), 30, 0.4);
}

// Half of the set is written before its turn comes: it is sent once instead of twice.
TEST(VirtualMigration, long_round_leaves_out_what_is_dirty_again) {
  const DirtyTrace trace = Sequential(1024, 512, 25);
  VirtualMigration migration(trace, Plain(100));
  const RoundReport first = migration.Round({.is_long = true});
  EXPECT_GT(first.skipped_pages.value(), 0U);
  EXPECT_NEAR(static_cast<double>((first.pages + first.skipped_pages).value()), 1024 * 256, 2);
  // Whatever was sent, all that was written since the beginning is to come.
  EXPECT_NEAR(static_cast<double>(first.dirty_pages.value()), first.ms / 1000 * 25 * 256,
              0.01 * 256 * 256);
}

// A set that is written all over again and again: it cannot be sent but at the end.
TEST(VirtualMigration, long_round_sends_nothing_of_a_hot_set) {
  const DirtyTrace trace = Sequential(512, 64, 6400);  // all of it every 10 ms
  VirtualMigration migration(trace, Plain(100));
  (void)migration.Round({.is_long = true});
  const RoundReport second = migration.Round({.is_long = true, .pause_ms = 20});
  EXPECT_NEAR(static_cast<double>(second.pages.value()), 0, 64);
  EXPECT_NEAR(static_cast<double>(second.dirty_pages.value()), 64 * 256, 64);
  const RoundReport third = migration.Round();
  EXPECT_NEAR(static_cast<double>(third.pages.value()), 64 * 256, 64);
}

// The one half of the set comes back in the second stretch only after the other.
TEST(VirtualMigration, guest_that_goes_round_its_set_leaves_alone_what_it_has_just_written) {
  const DirtyTrace trace = Sequential(512, 400, 40);
  VirtualMigration migration(trace, Plain(1000));
  (void)migration.Round();  // half a second: 20 MiB are dirty
  const RoundReport second = migration.Round({.is_long = true});
  EXPECT_NEAR(static_cast<double>(second.pages.value()), 20 * 256, 256);
  EXPECT_NEAR(static_cast<double>(second.skipped_pages.value()), 0, 64);
}

PredictionInput Input(double mib_per_second, int target_ms) {
  PredictionInput input{.link = Plain(mib_per_second),
                        .costs = {.pause = 0, .switch_over = 20, .collect_per_gib = 0}};
  input.options.downtime_target = milliseconds(target_ms);
  input.options.workers = 1;
  input.options.mechanisms = {.skip = false, .hold = false, .instant = false};
  return input;
}

TEST(Prediction, rounds_go_on_until_the_downtime_is_under_the_target) {
  const DirtyTrace trace = Sequential(1024, 512, 25);
  const Prediction prediction = Predict(trace, Input(100, 300));
  EXPECT_TRUE(prediction.converges);
  EXPECT_TRUE(prediction.migrates);
  // 256 MiB after the first round take 2560 ms, 64 take 640, 16 take 160: with 20 ms besides.
  ASSERT_EQ(prediction.rounds.size(), 4U);
  EXPECT_TRUE(prediction.rounds.back().stopped);
  EXPECT_NEAR(prediction.rounds[2].predicted_downtime_ms, 180, 5);
  EXPECT_NEAR(prediction.downtime_ms, 180, 5);
  EXPECT_NEAR(prediction.bytes, (1024 + 256 + 64 + 16) * kMiB, 5 * kMiB);
  EXPECT_NEAR(prediction.total_ms, (1024 + 256 + 64 + 16) * 10 + 20, 150);
}

TEST(Prediction, guest_that_writes_faster_than_is_sent_does_not_converge) {
  const DirtyTrace trace = Sequential(1024, 512, 200);
  PredictionInput input = Input(100, 300);
  input.options.max_rounds = 5;
  const Prediction given_up = Predict(trace, input);
  EXPECT_FALSE(given_up.converges);
  EXPECT_FALSE(given_up.migrates);
  EXPECT_FALSE(given_up.rounds.back().stopped);
  EXPECT_NEAR(given_up.downtime_ms, 5120 + 20, 60);  // the whole working set
  input.options.not_converging = NotConverging::kStopAnyway;
  const Prediction stopped = Predict(trace, input);
  EXPECT_FALSE(stopped.converges);
  EXPECT_TRUE(stopped.migrates);
  EXPECT_NEAR(stopped.downtime_ms, 5120 + 20, 60);
  EXPECT_GT(stopped.total_ms, given_up.total_ms);
}

TEST(Prediction, throttled_guest_converges_and_the_least_that_it_was_left_is_told) {
  const DirtyTrace trace = Sequential(1024, 512, 200);
  PredictionInput input = Input(100, 300);
  input.options.not_converging = NotConverging::kThrottle;
  const Prediction prediction = Predict(trace, input);
  EXPECT_TRUE(prediction.converges);
  EXPECT_LT(prediction.cpu_share, 0.5);  // it writes twice as fast as is sent
  EXPECT_GE(prediction.cpu_share, 0.05);
  EXPECT_LE(prediction.downtime_ms, 300);
}

// The paper's own example: from 100 to 500 Mbit/s, 50 over what the guest writes.
TEST(Prediction, rate_follows_the_guest_when_it_may) {
  PredictionInput input = Input(1000, 300);
  input.options.least_bandwidth = Mbit(100);
  input.options.bandwidth_step = Mbit(50);
  input.options.bandwidth = Mbit(500);
  const double megabit = 1e6 / 8 / kMiB;  // MiB
  const Prediction prediction = Predict(Sequential(1024, 512, 200 * megabit), input);
  ASSERT_GE(prediction.rounds.size(), 3U);
  const auto rate = [&](size_t round) {
    return static_cast<double>(prediction.rounds[round].bytes.value()) * 8 / 1e3 /
           prediction.rounds[round].ms;
  };
  EXPECT_NEAR(rate(0), 100, 1);
  EXPECT_GT(rate(1), 90);
  EXPECT_LT(rate(1), 260);
  EXPECT_TRUE(prediction.converges);
}

TEST(Prediction, skipping_saves_bytes_and_the_chosen_instant_saves_downtime) {
  const auto workload = ParseSyntheticWorkload("memory=8G,working-set=512M,rate=60000,pattern=hot");
  ASSERT_TRUE(workload.ok());
  const DirtyTrace trace = TraceOf(*workload);
  PredictionInput input = Input(1000, 300);
  const Prediction plain = Predict(trace, input);
  input.options.mechanisms.skip = true;
  const Prediction skipping = Predict(trace, input);
  EXPECT_LT(skipping.bytes, plain.bytes);
  input.options.mechanisms.instant = true;
  const Prediction chosen = Predict(trace, input);
  EXPECT_LE(chosen.downtime_ms, skipping.downtime_ms);
  EXPECT_TRUE(plain.converges && skipping.converges && chosen.converges);
}

TEST(Prediction, waiting_for_a_guest_that_never_writes_less_has_an_end_here) {
  PredictionInput input = Input(100, 300);
  input.options.not_converging = NotConverging::kWait;
  const Prediction prediction = Predict(Sequential(1024, 512, 200), input);
  EXPECT_FALSE(prediction.converges);
  EXPECT_FALSE(prediction.migrates);
}

// The rounds of a real migration are all that it knows.
TEST(RoundForecast, after_the_first_round_knows_the_rest_of_a_guest_that_writes_steadily) {
  const DirtyTrace trace = Sequential(1024, 1024, 25);
  const PredictionInput input = Input(100, 300);
  const Prediction whole = Predict(trace, input);
  RoundForecast forecast(trace.memory(), input.options);
  DowntimeModel model;
  EXPECT_TRUE(forecast.Rest(model).rounds.empty());
  double done_ms = 0;
  for (const RoundReport& round : whole.rounds) {
    if (round.stopped) break;
    done_ms += round.ms;
    model.AddRound(round, input.options.bandwidth);
    forecast.AddRound(round);
    EXPECT_NEAR(done_ms + forecast.Rest(model).total_ms, whole.total_ms, 0.02 * whole.total_ms)
        << round.number;
    EXPECT_TRUE(forecast.Rest(model).migrates);
  }
}

TEST(Prediction, guest_that_does_not_write_takes_one_round) {
  const Prediction prediction = Predict(Sequential(100, 1, 0), Input(100, 300));
  EXPECT_TRUE(prediction.converges);
  EXPECT_EQ(prediction.rounds.size(), 2U);
  EXPECT_NEAR(prediction.total_ms, 1020, 10);
  EXPECT_NEAR(prediction.downtime_ms, 20, 1);
}

TEST(Prediction, terabyte_at_400_gigabits_is_a_matter_of_half_a_minute) {
  const auto workload =
      ParseSyntheticWorkload("memory=1T,working-set=64G,rate=500000,pattern=uniform");
  ASSERT_TRUE(workload.ok());
  const DirtyTrace trace = TraceOf(*workload);
  PredictionInput input;
  input.link.bytes_per_second = 400e9 / 8;
  input.options.workers = 8;
  const Prediction prediction = Predict(trace, input);
  EXPECT_TRUE(prediction.converges);
  EXPECT_NEAR(prediction.total_ms / 1000, 1.1e12 / 50e9, 3);
  EXPECT_LT(prediction.downtime_ms, 350);
  // A tenth of the link: it takes longer, and more is written meanwhile.
  input.link.bytes_per_second /= 10;
  const Prediction slow = Predict(trace, input);
  EXPECT_GT(slow.total_ms, 10 * prediction.total_ms);
  EXPECT_GT(slow.bytes, prediction.bytes);
}

// The paper's figures 3 to 6: each round brings the downtime down, to a floor that the bandwidth
// decides.
TEST(Prediction, downtime_by_rounds_falls_to_a_floor_that_is_lower_on_a_faster_link) {
  const DirtyTrace trace = Sequential(1024, 256, 60);
  const auto slow = DowntimeByRounds(trace, Input(50, 300), 8);
  const auto fast = DowntimeByRounds(trace, Input(200, 300), 8);
  ASSERT_EQ(slow.size(), 9U);
  EXPECT_NEAR(slow[0], 1024.0 / 50 * 1000 + 20, 100);  // plain stop-and-copy
  EXPECT_NEAR(slow[8], 256.0 / 50 * 1000 + 20, 100);   // the whole working set
  for (size_t i = 1; i < fast.size(); ++i) {
    EXPECT_LE(fast[i], fast[i - 1] + 0.01);
    EXPECT_LT(fast[i], slow[i]);
  }
  EXPECT_LT(fast[8], 25);
}

}  // namespace
}  // namespace ramferry
