// The order of the six stages, who owns the guest in each, and the prediction of the downtime.
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/downtime_model.h"
#include "engine/stage.h"
#include "gtest/gtest.h"

namespace ramferry {
namespace {

constexpr Stage kAll[] = {Stage::kPreMigration, Stage::kReservation, Stage::kPreCopy,
                          Stage::kStopAndCopy,  Stage::kCommitment,  Stage::kActivation,
                          Stage::kDone,         Stage::kRolledBack,  Stage::kInDoubt};

// Written out by hand from the picture in stage.h, not computed: this is the promise.
const std::set<std::pair<Stage, Stage>> kLegal = {
    {Stage::kPreMigration, Stage::kReservation}, {Stage::kReservation, Stage::kPreCopy},
    {Stage::kPreCopy, Stage::kStopAndCopy},      {Stage::kStopAndCopy, Stage::kCommitment},
    {Stage::kCommitment, Stage::kActivation},    {Stage::kActivation, Stage::kDone},
    {Stage::kActivation, Stage::kInDoubt},       {Stage::kInDoubt, Stage::kDone},
    {Stage::kPreMigration, Stage::kRolledBack},  {Stage::kReservation, Stage::kRolledBack},
    {Stage::kPreCopy, Stage::kRolledBack},       {Stage::kStopAndCopy, Stage::kRolledBack},
    {Stage::kCommitment, Stage::kRolledBack},    {Stage::kActivation, Stage::kRolledBack},
    {Stage::kInDoubt, Stage::kRolledBack}};

// Brings a machine to a stage by legal steps.
void Reach(StageMachine& machine, Stage stage) {
  std::vector<Stage> way;
  if (stage == Stage::kRolledBack) {
    way = {Stage::kRolledBack};
  } else {
    for (const Stage next : kAll) {
      if (next != Stage::kPreMigration && next <= std::min(stage, Stage::kActivation)) {
        way.push_back(next);
      }
    }
    if (stage > Stage::kActivation) way.push_back(stage);
  }
  for (const Stage next : way) ASSERT_TRUE(machine.Enter(next).ok()) << NameOf(next);
  ASSERT_EQ(machine.stage(), stage);
}

TEST(StageMachine, every_illegal_step_is_refused_and_changes_nothing) {
  for (const Stage from : kAll) {
    for (const Stage to : kAll) {
      SCOPED_TRACE(std::string(NameOf(from)) + " -> " + NameOf(to));
      StageMachine machine;
      Reach(machine, from);
      const Deadline before = machine.entered(to);
      const absl::Status status = machine.Enter(to);
      if (kLegal.contains({from, to})) {
        EXPECT_TRUE(status.ok()) << status;
        EXPECT_EQ(machine.stage(), to);
        EXPECT_NE(machine.entered(to), Deadline{});
      } else {
        EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
        EXPECT_NE(status.message().find(NameOf(from)), std::string::npos) << status;
        EXPECT_NE(status.message().find(NameOf(to)), std::string::npos) << status;
        EXPECT_EQ(machine.stage(), from);
        EXPECT_EQ(machine.entered(to), before);
      }
    }
  }
}

TEST(StageMachine, source_owns_the_guest_until_the_ownership_message_may_have_left) {
  for (const Stage stage : kAll) {
    const bool source_owns =
        stage != Stage::kActivation && stage != Stage::kDone && stage != Stage::kInDoubt;
    EXPECT_EQ(SourceOwns(stage), source_owns) << NameOf(stage);
  }
}

TEST(StageMachine, stages_never_entered_have_no_time) {
  StageMachine machine;
  EXPECT_NE(machine.entered(Stage::kPreMigration), Deadline{});
  for (const Stage stage : kAll) {
    if (stage != Stage::kPreMigration) {
      EXPECT_EQ(machine.entered(stage), Deadline{}) << NameOf(stage);
    }
  }
}

TEST(DowntimeModel, predicts_fixed_costs_plus_pages_over_bandwidth) {
  DowntimeModel model(20);
  EXPECT_DOUBLE_EQ(model.Predict(PageCount(1000)), 20) << "nothing is known about the bandwidth";
  model.AddRound(MiB(100), 1000);
  EXPECT_DOUBLE_EQ(model.Predict(PageCount(0)), 20);
  EXPECT_DOUBLE_EQ(model.Predict(PageCount(256)), 30);  // 1 MiB at 0.1 MiB/ms
}

TEST(DowntimeModel, counts_the_finding_of_dirty_pages_twice) {
  DowntimeModel model(20);
  EXPECT_DOUBLE_EQ(model.Predict(PageCount(0), 30), 80) << "also before anything was sent";
  model.AddRound(MiB(100), 1000);
  EXPECT_DOUBLE_EQ(model.Predict(PageCount(256), 30), 90);
}

TEST(DowntimeModel, follows_the_rate_of_later_rounds) {
  DowntimeModel model(0);
  model.AddRound(MiB(100), 1000);
  model.AddRound(MiB(100), 2000);
  EXPECT_GT(model.Predict(PageCount(256)), 10);
  for (int i = 0; i < 20; ++i) model.AddRound(MiB(100), 2000);
  EXPECT_NEAR(model.Predict(PageCount(256)), 20, 0.1);
}

// Half of 100 MiB/s may be sent while the guest runs; the stop has all of it.
TEST(DowntimeModel, limit_of_a_round_does_not_hold_back_the_stop) {
  DowntimeModel model(0);
  model.AddRound(MiB(100), 2000, MiB(50), MiB(100));
  EXPECT_DOUBLE_EQ(model.Predict(PageCount(256)), 10);
  DowntimeModel slow(0);  // the network has no more
  slow.AddRound(MiB(100), 2500, MiB(50), MiB(100));
  EXPECT_DOUBLE_EQ(slow.Predict(PageCount(256)), 25);
  DowntimeModel endless(0);  // what it has without a limit is not known
  endless.AddRound(MiB(100), 2000, MiB(50));
  EXPECT_DOUBLE_EQ(endless.Predict(PageCount(256)), 20);
}

TEST(DowntimeModel, time_in_which_nothing_was_to_be_sent_does_not_count) {
  DowntimeModel model(0);
  model.AddRound({.bytes = MiB(100), .ms = 1800, .quiesced_ms = 300, .idle_ms = 500}, {});
  EXPECT_DOUBLE_EQ(model.Predict(PageCount(256)), 10);
}

TEST(DowntimeModel, small_and_empty_rounds_say_nothing_about_the_bandwidth) {
  DowntimeModel model(0);
  model.AddRound(MiB(100), 1000);
  const double before = model.bytes_per_ms();
  model.AddRound(KiB(4), 50);
  model.AddRound(ByteCount(0), 50);
  model.AddRound(MiB(100), 0);
  EXPECT_EQ(model.bytes_per_ms(), before);
}

TEST(DowntimeModel, small_rounds_of_a_small_guest_count) {
  DowntimeModel model(0);
  model.AddRound(MiB(4), 4);
  model.AddRound(MiB(3), 6);
  EXPECT_LT(model.bytes_per_ms(), static_cast<double>(MiB(1).value()));
}

}  // namespace
}  // namespace ramferry
