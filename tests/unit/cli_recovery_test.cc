// What a killed ramferry left behind is settled as its journal says, and never so that a guest
// could run twice or be lost.
#include <unistd.h>

#include <fstream>

#include "base/process_identity.h"
#include "cli/recovery.h"
#include "fake_qmp_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/qemu/qemu_process.h"

namespace ramferry {
namespace {

using testing::HasSubstr;

constexpr Phase kSourcePhases[] = {Phase::kMeasuring,   Phase::kTracking, Phase::kPausing,
                                   Phase::kHandingOver, Phase::kGone,     Phase::kReturned};
constexpr Phase kDestinationPhases[] = {Phase::kStarting,   Phase::kReserved,  Phase::kHolding,
                                        Phase::kActivating, Phase::kActivated, Phase::kReleased};

// The undo record of a QEMU that is `process`, with nothing to undo.
std::string UndoRecord(const ProcessIdentity& process, bool started = false) {
  return nlohmann::json{
      {"process",
       {{"boot_id", process.boot_id}, {"pid", process.pid}, {"started", process.started}}},
      {"capabilities", nlohmann::json::object()},
      {"max-bandwidth", 0},
      {"started", started}}
      .dump();
}
// A scripted QEMU is this process; one that has ended was another with its number.
std::string Alive() {
  return UndoRecord(IdentityOf(::getpid()));
}
std::string Ended() {
  ProcessIdentity process = IdentityOf(::getpid());
  process.started -= 1;
  return UndoRecord(process);
}

class Recovery : public testing::Test {
 protected:
  // An entry whose ramferry is dead, about a QEMU that has ended.
  JournalEntry Entry(Role role, Phase phase) {
    JournalEntry entry{.migration_id = "0b7c",
                       .role = role,
                       .phase = phase,
                       .guest = "web1",
                       .locator = "qemu:" + directory_.File("gone.qmp"),
                       .peer = "192.0.2.77",
                       .undo = Ended()};
    EXPECT_TRUE(journal_.Write(entry).ok());
    return entry;
  }
  absl::StatusOr<std::string> Settle(const JournalEntry& entry,
                                     Resolution resolution = Resolution::kAsk) {
    return SettleEntry(entry, resolution, settings_, journal_);
  }
  bool Kept(const JournalEntry& entry) {
    return journal_.Read(entry.migration_id, entry.role).ok();
  }
  TestDirectory directory_;
  Journal journal_ = *Journal::Open(directory_.File("state"));
  Settings settings_{.ca = directory_.File("no-ca.pem")};
};

TEST_F(Recovery, work_of_a_living_ramferry_is_left_alone) {
  const auto check = [this](Role role, Phase phase) {
    JournalEntry entry = Entry(role, phase);
    StampWithThisProcess(entry);
    ASSERT_TRUE(journal_.Write(entry).ok());
    for (const Resolution how :
         {Resolution::kAsk, Resolution::kRunHere, Resolution::kDiscardHere}) {
      const auto done = Settle(entry, how);
      EXPECT_TRUE(absl::IsFailedPrecondition(done.status())) << NameOf(phase);
      EXPECT_THAT(done.status().message(), HasSubstr(std::to_string(::getpid())));
      EXPECT_TRUE(Kept(entry));
    }
  };
  for (const Phase phase : kSourcePhases) check(Role::kSource, phase);
  for (const Phase phase :
       {Phase::kStarting, Phase::kReserved, Phase::kHolding, Phase::kActivating}) {
    check(Role::kDestination, phase);
  }
}

// Its words may be older than the journal.
TEST_F(Recovery, caller_is_believed_no_more_than_the_journal) {
  const JournalEntry stale = Entry(Role::kSource, Phase::kHandingOver);
  Entry(Role::kSource, Phase::kGone);
  EXPECT_TRUE(absl::IsFailedPrecondition(Settle(stale, Resolution::kRunHere).status()));
  EXPECT_TRUE(Settle(stale, Resolution::kDiscardHere).ok());
  EXPECT_TRUE(Settle(stale, Resolution::kRunHere).ok());  // settled meanwhile: nothing to do
}

// A QMP path is no identity: by now it may be the path of another guest.
TEST_F(Recovery, another_qemu_at_the_same_path_is_left_alone) {
  for (const auto& [role, phase] :
       {std::pair{Role::kSource, Phase::kTracking}, std::pair{Role::kSource, Phase::kPausing},
        std::pair{Role::kSource, Phase::kGone}, std::pair{Role::kDestination, Phase::kReserved},
        std::pair{Role::kDestination, Phase::kHolding},
        std::pair{Role::kDestination, Phase::kActivating}}) {
    FakeQmpServer other;
    JournalEntry entry = Entry(role, phase);
    entry.locator = "qemu:" + other.path();
    ASSERT_TRUE(journal_.Write(entry).ok());
    EXPECT_EQ(Settle(entry).ok(), phase != Phase::kActivating) << NameOf(phase);
    EXPECT_TRUE(other.commands().empty()) << NameOf(phase);
    ASSERT_TRUE(journal_.Remove(entry.migration_id, role).ok());
  }
}

TEST_F(Recovery, guest_that_never_left_is_not_discarded) {
  for (const Phase phase : {Phase::kTracking, Phase::kPausing, Phase::kReturned}) {
    const JournalEntry entry = Entry(Role::kSource, phase);
    EXPECT_TRUE(absl::IsFailedPrecondition(Settle(entry, Resolution::kDiscardHere).status()));
    EXPECT_TRUE(Kept(entry));
  }
}

TEST_F(Recovery, guest_that_runs_elsewhere_is_not_run_here) {
  const JournalEntry entry = Entry(Role::kSource, Phase::kGone);
  const auto done = Settle(entry, Resolution::kRunHere);
  EXPECT_TRUE(absl::IsFailedPrecondition(done.status()));
  EXPECT_THAT(done.status().message(), HasSubstr("192.0.2.77"));
  EXPECT_TRUE(Kept(entry));
}

TEST_F(Recovery, guest_that_was_never_handed_over_is_not_run_by_the_destination) {
  for (const Phase phase : {Phase::kStarting, Phase::kReserved, Phase::kHolding}) {
    const JournalEntry entry = Entry(Role::kDestination, phase);
    EXPECT_TRUE(absl::IsFailedPrecondition(Settle(entry, Resolution::kRunHere).status()));
    EXPECT_TRUE(Kept(entry));
  }
}

TEST_F(Recovery, qemu_that_has_ended_on_the_source_is_no_longer_waited_for) {
  for (const Phase phase : {Phase::kTracking, Phase::kPausing, Phase::kReturned, Phase::kGone}) {
    const JournalEntry entry = Entry(Role::kSource, phase);
    const auto done = Settle(entry);
    ASSERT_TRUE(done.ok()) << done.status();
    EXPECT_THAT(*done, HasSubstr("web1"));
    EXPECT_FALSE(Kept(entry));
  }
}

TEST_F(Recovery, doubt_stays_when_the_other_host_cannot_be_asked) {
  const JournalEntry entry = Entry(Role::kSource, Phase::kHandingOver);
  const auto done = Settle(entry);
  EXPECT_TRUE(absl::IsFailedPrecondition(done.status())) << done.status();
  EXPECT_THAT(std::string(done.status().message()), HasSubstr("--run-here"));
  EXPECT_TRUE(Kept(entry));
}

// Here this host has not even a certificate to ask with.
TEST_F(Recovery, a_persons_word_ends_the_doubt_when_the_other_host_cannot_be_asked) {
  for (const Resolution word : {Resolution::kRunHere, Resolution::kDiscardHere}) {
    const JournalEntry entry = Entry(Role::kSource, Phase::kHandingOver);
    const auto done = Settle(entry, word);
    EXPECT_TRUE(done.ok()) << done.status();
    EXPECT_FALSE(Kept(entry));
  }
}

TEST_F(Recovery, reservation_that_was_broken_off_leaves_nothing) {
  for (const Phase phase : {Phase::kStarting, Phase::kReserved}) {
    const JournalEntry entry = Entry(Role::kDestination, phase);
    ASSERT_TRUE(Settle(entry).ok());
    EXPECT_FALSE(Kept(entry));
  }
}

// Killed between starting a QEMU and hearing from it, or the QEMU is frozen.
TEST_F(Recovery, qemu_that_was_started_for_a_guest_and_never_told_to_run_need_not_answer) {
  for (const Phase phase :
       {Phase::kStarting, Phase::kReserved, Phase::kHolding, Phase::kActivating}) {
    const bool may_run = phase == Phase::kActivating;
    const auto qemu = QemuProcess::Start({"sleep", "1000"}, directory_.File("log"));
    ASSERT_TRUE(qemu.ok()) << qemu.status();
    JournalEntry entry = Entry(Role::kDestination, phase);
    entry.undo = UndoRecord(IdentityOf((*qemu)->pid()), /*started=*/true);
    ASSERT_TRUE(journal_.Write(entry).ok());
    const auto done = Settle(entry, may_run ? Resolution::kDiscardHere : Resolution::kAsk);
    EXPECT_EQ(done.ok(), !may_run) << NameOf(phase) << done.status();
    EXPECT_EQ((*qemu)->ended(), !may_run) << NameOf(phase);
    (*qemu)->Kill();
  }
}

TEST_F(Recovery, image_that_was_never_handed_over_is_given_up_for_good) {
  const JournalEntry entry = Entry(Role::kDestination, Phase::kHolding);
  ASSERT_TRUE(Settle(entry).ok());
  const auto kept = journal_.Read(entry.migration_id, entry.role);
  ASSERT_TRUE(kept.ok());  // the source may ask
  EXPECT_EQ(kept->phase, Phase::kReleased);
}

TEST_F(Recovery, guest_that_was_about_to_run_and_whose_qemu_is_gone_is_a_persons_to_decide) {
  const JournalEntry entry = Entry(Role::kDestination, Phase::kActivating);
  const auto done = Settle(entry);
  EXPECT_TRUE(absl::IsFailedPrecondition(done.status()));
  EXPECT_THAT(done.status().message(), HasSubstr("--discard-here"));
  EXPECT_EQ(journal_.Read(entry.migration_id, entry.role)->phase, Phase::kActivating);
}

TEST_F(Recovery, guest_that_runs_after_all_is_ours) {
  FakeQmpServer qemu;
  qemu.Return("query-status", {{"status", "running"}, {"running", true}});
  JournalEntry entry = Entry(Role::kDestination, Phase::kActivating);
  entry.locator = "qemu:" + qemu.path();
  entry.undo = Alive();
  ASSERT_TRUE(journal_.Write(entry).ok());
  const auto done = Settle(entry);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(journal_.Read(entry.migration_id, entry.role)->phase, Phase::kActivated);
  for (const auto& command : qemu.commands()) EXPECT_NE(command["execute"], "cont");
}

TEST_F(Recovery, guest_that_was_told_to_run_and_does_not_is_run) {
  FakeQmpServer qemu;
  qemu.Return("query-status", {{"status", "paused"}, {"running", false}});
  qemu.Return("cont", nlohmann::json::object());
  qemu.Return("announce-self", nlohmann::json::object());
  JournalEntry entry = Entry(Role::kDestination, Phase::kActivating);
  entry.locator = "qemu:" + qemu.path();
  entry.undo = Alive();
  ASSERT_TRUE(journal_.Write(entry).ok());
  ASSERT_TRUE(Settle(entry).ok());
  EXPECT_EQ(journal_.Read(entry.migration_id, entry.role)->phase, Phase::kActivated);
}

// A monitor that cannot be talked to says nothing about the guest behind it.
TEST_F(Recovery, qemu_that_cannot_be_asked_is_not_one_that_has_ended) {
  FakeQmpServer odd("this is no QMP");
  for (const auto& [role, phase, how] :
       {std::tuple{Role::kSource, Phase::kGone, Resolution::kAsk},
        std::tuple{Role::kSource, Phase::kTracking, Resolution::kAsk},
        std::tuple{Role::kSource, Phase::kHandingOver, Resolution::kDiscardHere},
        std::tuple{Role::kDestination, Phase::kReserved, Resolution::kAsk},
        std::tuple{Role::kDestination, Phase::kActivating, Resolution::kDiscardHere}}) {
    JournalEntry entry = Entry(role, phase);
    entry.locator = "qemu:" + odd.path();
    entry.undo = Alive();
    ASSERT_TRUE(journal_.Write(entry).ok());
    EXPECT_FALSE(Settle(entry, how).ok()) << NameOf(phase);
    const auto kept = journal_.Read(entry.migration_id, entry.role);
    ASSERT_TRUE(kept.ok()) << NameOf(phase);
    EXPECT_EQ(kept->phase, phase);
  }
}

TEST_F(Recovery, settled_entries_stay_until_a_person_says_otherwise) {
  for (const Phase phase : {Phase::kActivated, Phase::kReleased}) {
    const JournalEntry entry = Entry(Role::kDestination, phase);
    EXPECT_TRUE(Settle(entry).ok());
    EXPECT_TRUE(Kept(entry));
    EXPECT_TRUE(Settle(entry, Resolution::kDiscardHere).ok());
    EXPECT_FALSE(Kept(entry));
  }
}

// What a damaged entry says of its guest; "" where that is lost.
TEST_F(Recovery, damaged_entry_stops_its_own_guest_and_no_other) {
  const JournalEntry entry = Entry(Role::kSource, Phase::kTracking);
  const std::string path = journal_.directory() + "/dead.source.json";
  const auto leave = [&](const std::string& locator) {
    std::ofstream(path, std::ios::trunc)
        << (locator.empty() ? "\x01\x02" : "{\"locator\": \"" + locator + "\", \"migr");
  };
  for (const std::string& locator : {std::string(), entry.locator}) {
    leave(locator);
    const absl::Status refused = SettleLeftovers(entry.locator, settings_, journal_);
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << locator << refused;
    EXPECT_THAT(refused.message(), HasSubstr(path));
    EXPECT_TRUE(Kept(entry));
  }
  leave("qemu:/run/another.qmp");
  EXPECT_TRUE(SettleLeftovers(entry.locator, settings_, journal_).ok());
  EXPECT_FALSE(Kept(entry));
}

// Its source has it paused, or was told that it runs: to send it on would be to send what is not
// this host's.
TEST_F(Recovery, guest_that_has_not_quite_come_is_settled_before_it_is_moved_on) {
  JournalEntry holding = Entry(Role::kDestination, Phase::kHolding);
  StampWithThisProcess(holding);
  ASSERT_TRUE(journal_.Write(holding).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(SettleLeftovers(holding.locator, settings_, journal_)));
  holding.pid = 0;
  ASSERT_TRUE(journal_.Write(holding).ok());
  EXPECT_TRUE(SettleLeftovers(holding.locator, settings_, journal_).ok());
  EXPECT_EQ(journal_.Read(holding.migration_id, holding.role)->phase, Phase::kReleased);
}

TEST_F(Recovery, every_phase_is_explained_alive_and_dead) {
  const auto check = [this](Role role, Phase phase) {
    JournalEntry entry = Entry(role, phase);
    EXPECT_FALSE(Explain(entry).empty()) << NameOf(phase);
    StampWithThisProcess(entry);
    EXPECT_FALSE(Explain(entry).empty()) << NameOf(phase);
  };
  for (const Phase phase : kSourcePhases) check(Role::kSource, phase);
  for (const Phase phase : kDestinationPhases) check(Role::kDestination, phase);
  EXPECT_THAT(Explain(Entry(Role::kSource, Phase::kHandingOver)), HasSubstr("IN DOUBT"));
}

}  // namespace
}  // namespace ramferry
