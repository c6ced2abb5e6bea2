// Whole migrations with everything that can go wrong between two hosts: never two owners, never
// none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <tuple>

#include "base/status.h"
#include "tests/unit/engine_site.h"

namespace ramferry {
namespace {

using std::chrono::milliseconds;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

// --- cancellation

class CancelIn : public ::testing::TestWithParam<Stage> {};
INSTANTIATE_TEST_SUITE_P(Stages, CancelIn,
                         ::testing::Values(Stage::kReservation, Stage::kPreCopy,
                                           Stage::kStopAndCopy, Stage::kCommitment),
                         [](const auto& stage) {
                           std::string name = NameOf(stage.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(CancelIn, leaves_the_guest_as_before_and_a_second_migration_succeeds) {
  MigrationSite site;
  site.on_stage = [&](Stage stage) {
    if (stage == GetParam()) site.cancel().Request("interrupted");
  };
  const MigrationReport report = site.Migrate();
  site.ExpectRolledBack(report);
  EXPECT_THAT(report.error, HasSubstr("interrupted"));
  EXPECT_TRUE(site.journal(Role::kSource).ReadAll()->empty());
  site.on_stage = nullptr;
  site.ExpectMigrated(site.Migrate());
}

TEST(Cancel, before_anything_has_begun_never_touches_the_guest) {
  MigrationSite site;
  site.cancel().Request("interrupted");
  site.on_source = [](std::string_view call) {
    EXPECT_EQ(call, "RollBack");
    return absl::OkStatus();
  };
  site.ExpectRolledBack(site.Migrate());
}

TEST(Cancel, comes_too_late_once_the_ownership_message_is_about_to_leave) {
  MigrationSite site;
  site.on_stage = [&](Stage stage) {
    if (stage == Stage::kActivation) site.cancel().Request("interrupted");
  };
  site.ExpectMigrated(site.Migrate());
}

TEST(Cancel, of_the_destination_before_ownership_leaves_the_guest_with_the_source) {
  for (const std::string when : {"Reserve", "FinishDeviceState"}) {
    SCOPED_TRACE(when);
    MigrationSite site;
    site.on_destination = [&](std::string_view call) {
      if (call == when) site.destination_cancel().Request("the receiver was stopped");
      return absl::OkStatus();
    };
    const MigrationReport report = site.Migrate();
    // In doubt for a moment, if the ownership message was under way already; settled by asking.
    site.ExpectRolledBack(report);
  }
}

// --- the connection

class ControlFault : public ::testing::TestWithParam<std::tuple<int, FakeFault>> {
 protected:
  [[nodiscard]] FakeControlPair::Direction direction() const {
    return static_cast<FakeControlPair::Direction>(std::get<0>(GetParam()));
  }
  // Short waits where the fault is silence; nothing that is asserted depends on them.
  void Prepare(MigrationSite& site) const {
    const bool silent = std::get<1>(GetParam()) == FakeFault::kSwallow ||
                        std::get<1>(GetParam()) == FakeFault::kSwallowFromHere;
    if (!silent) return;
    site.options.answer_time = milliseconds(1500);
    site.options.settle_time = milliseconds(4000);
    site.ownership_time = milliseconds(2000);
  }
};
std::string NameOfFault(const ::testing::TestParamInfo<std::tuple<int, FakeFault>>& fault) {
  constexpr const char* kDirections[] = {"to_destination", "to_source"};
  constexpr const char* kKinds[] = {"delivered_then_cut", "lost_and_cut", "send_failed",
                                    "swallowed", "silent_from_there"};
  return std::string(kDirections[std::get<0>(fault.param)]) + "_" +
         kKinds[static_cast<int>(std::get<1>(fault.param))];
}
INSTANTIATE_TEST_SUITE_P(
    Kinds, ControlFault,
    ::testing::Combine(::testing::Values(0, 1),
                       ::testing::Values(FakeFault::kDeliverAndCut, FakeFault::kLoseAndCut,
                                         FakeFault::kFailSend, FakeFault::kSwallow,
                                         FakeFault::kSwallowFromHere)),
    NameOfFault);

TEST_P(ControlFault, at_every_message_leaves_exactly_one_owner) {
  bool reached = true;
  size_t migrated = 0;
  for (size_t nth = 1; reached; ++nth) {
    MigrationSite site;
    Prepare(site);
    site.control().At(direction(), nth, std::get<1>(GetParam()));
    const MigrationReport report = site.Migrate();
    const auto& sent = direction() == FakeControlPair::kToDestination ? site.SentToDestination()
                                                                      : site.SentToSource();
    // The last message of a migration that fails early may be its own Abort or Refused.
    reached = sent.size() >= nth;
    const std::string name = reached ? sent[nth - 1] : "none";
    SCOPED_TRACE("message " + std::to_string(nth) + ", " + name);
    EXPECT_NE(report.outcome, Outcome::kInDoubt) << "the destination could be asked";
    site.ExpectOneOwner(report);
    if (report.outcome == Outcome::kMigrated) ++migrated;
    if (name == "Activated" || !reached) {
      EXPECT_EQ(report.outcome, Outcome::kMigrated);
    }
    if (name == "Holding" && std::get<1>(GetParam()) != FakeFault::kDeliverAndCut) {
      EXPECT_EQ(report.outcome, Outcome::kRolledBack);
    }
    ASSERT_LT(nth, 60U);
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GE(migrated, 1U);
}

TEST_P(ControlFault, at_the_ownership_message_and_a_destination_that_cannot_be_asked) {
  MigrationSite site;
  Prepare(site);
  site.options.settle_time = milliseconds(600);
  site.destination_answers = false;
  const bool at_question = direction() == FakeControlPair::kToDestination;
  site.control().AtNext(direction(), at_question ? "HandOver" : "Activated",
                        std::get<1>(GetParam()));
  const MigrationReport report = site.Migrate();
  const bool arrives = std::get<1>(GetParam()) == FakeFault::kDeliverAndCut;
  if (!at_question && arrives) {
    site.ExpectMigrated(report);
    return;
  }
  EXPECT_EQ(report.outcome, Outcome::kInDoubt);
  site.ExpectOneOwner(report);
  EXPECT_THAT(report.error, HasSubstr("ramferry resolve " + report.migration_id));
  // Only where the message did arrive the guest runs there.
  EXPECT_EQ(site.destination()->active(), !at_question || arrives);
}

TEST(Settle, a_destination_without_a_record_leaves_the_guest_in_doubt) {
  MigrationSite site;
  site.destination_remembers = false;
  site.control().AtNext(FakeControlPair::kToSource, "Activated", FakeFault::kLoseAndCut);
  site.on_destination = [&](std::string_view call) {
    if (call == "Activate") site.BreakJournal(Role::kDestination);
    return absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  EXPECT_EQ(report.outcome, Outcome::kInDoubt);
  EXPECT_GT(report.downtime_ms, 0) << "so far";
  EXPECT_TRUE(site.destination()->active());
  EXPECT_FALSE(site.guest().running());
  EXPECT_FALSE(site.guest().committed());
}

TEST(Settle, a_verdict_that_a_full_disk_refused_is_told_all_the_same) {
  for (const char* answer : {"Activated", "HandedBack"}) {
    SCOPED_TRACE(answer);
    const bool starts = std::string(answer) == "Activated";
    MigrationSite site;
    site.control().AtNext(FakeControlPair::kToSource, answer, FakeFault::kLoseAndCut);
    site.on_destination = [&](std::string_view call) {
      if (call != "Activate") return absl::OkStatus();
      site.FillDisk(Role::kDestination);
      return starts ? absl::OkStatus() : absl::InternalError("no vCPU starts");
    };
    const MigrationReport report = site.Migrate();
    if (starts) {
      site.ExpectMigrated(report);
    } else {
      site.ExpectRolledBack(report);
    }
    EXPECT_TRUE(site.journal(Role::kSource).ReadAll()->empty());
    EXPECT_TRUE(site.journal(Role::kDestination).ReadAll()->empty()) << "it was confirmed";
  }
}

TEST(Downtime, counts_though_the_failure_came_with_the_stop) {
  MigrationSite site;
  site.on_source = [&](std::string_view call) {
    if (call != "WaitPaused") return absl::OkStatus();
    EXPECT_TRUE(site.guest().WaitPaused(Clock::now()).ok());
    return absl::InternalError("the monitor broke");
  };
  const MigrationReport report = site.Migrate();
  site.ExpectRolledBack(report);
  EXPECT_GT(report.downtime_ms, 0);
}

// --- the journal

TEST(JournalFailure, of_the_source_before_ownership_keeps_the_guest_there) {
  for (const Stage stage : {Stage::kPreCopy, Stage::kStopAndCopy, Stage::kCommitment}) {
    SCOPED_TRACE(NameOf(stage));
    MigrationSite site;
    site.on_stage = [&](Stage now) {
      if (now == stage) site.BreakJournal(Role::kSource);
    };
    const MigrationReport report = site.Migrate();
    site.ExpectRolledBack(report);
    EXPECT_THAT(report.error, HasSubstr("cannot write the journal"));
    EXPECT_THAT(site.SentToDestination(), Not(Contains("HandOver")));
    site.on_stage = nullptr;
    site.MendJournal(Role::kSource);
    site.ExpectMigrated(site.Migrate());
  }
}

TEST(JournalFailure, of_the_source_after_ownership_changes_nothing_any_more) {
  MigrationSite site;
  site.on_stage = [&](Stage now) {
    if (now == Stage::kActivation) site.BreakJournal(Role::kSource);
  };
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  site.MendJournal(Role::kSource);
  const auto entry = site.journal(Role::kSource).Read(report.migration_id, Role::kSource);
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->phase, Phase::kHandingOver) << "which leads to the same end";
}

TEST(JournalFailure, of_the_source_when_the_guest_is_handed_back_lets_it_resume) {
  MigrationSite site;
  site.on_destination = [](std::string_view call) {
    return call == "Activate" ? absl::InternalError("no") : absl::OkStatus();
  };
  site.on_stage = [&](Stage now) {
    if (now == Stage::kActivation) site.BreakJournal(Role::kSource);
  };
  site.ExpectRolledBack(site.Migrate());
}

TEST(JournalFailure, of_the_destination_before_ownership_gives_the_guest_up) {
  for (const std::string call : {"Reserve", "FinishDeviceState"}) {
    SCOPED_TRACE(call);
    MigrationSite site;
    site.on_destination = [&](std::string_view now) {
      if (now == call) site.BreakJournal(Role::kDestination);
      return absl::OkStatus();
    };
    const MigrationReport report = site.Migrate();
    site.ExpectRolledBack(report);
    EXPECT_THAT(report.error, HasSubstr("cannot write the journal"));
  }
}

TEST(JournalFailure, of_the_destination_when_ownership_comes_hands_the_guest_back_unstarted) {
  MigrationSite site;
  std::atomic<bool> activated{false};
  site.on_stage = [&](Stage now) {
    if (now == Stage::kActivation) site.BreakJournal(Role::kDestination);
  };
  site.on_destination = [&](std::string_view call) {
    if (call == "Activate") activated = true;
    return absl::OkStatus();
  };
  site.ExpectRolledBack(site.Migrate());
  EXPECT_FALSE(activated) << "a guest may not start that a crash would forget";
  EXPECT_THAT(site.SentToSource(), Contains("HandedBack"));
}

TEST(JournalFailure, of_the_destination_once_the_guest_runs_is_only_noted) {
  MigrationSite site;
  site.on_destination = [&](std::string_view call) {
    if (call == "Activate") site.BreakJournal(Role::kDestination);
    return absl::OkStatus();
  };
  site.ExpectMigrated(site.Migrate());
  EXPECT_THAT(site.notes(), Contains(HasSubstr("cannot write the journal")));
}

TEST(JournalFailure, of_the_destination_when_it_gives_up_still_tells_the_source) {
  MigrationSite site;
  site.on_destination = [&](std::string_view call) {
    if (call != "Activate") return absl::OkStatus();
    site.BreakJournal(Role::kDestination);
    return absl::InternalError("no vCPU starts");
  };
  const MigrationReport report = site.Migrate();
  site.ExpectRolledBack(report);
  EXPECT_THAT(report.error, HasSubstr("no vCPU starts"));
}

}  // namespace
}  // namespace ramferry
