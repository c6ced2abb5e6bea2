// Releases of another protocol version: refused with the reason, before anything is touched.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/status.h"
#include "engine/destination_migration.h"
#include "engine/source_migration.h"
#include "hypervisor-glue/synthetic/synthetic_guest.h"
#include "tests/unit/engine_scratch.h"
#include "tests/unit/fake_control_channel.h"

namespace ramferry {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

constexpr char kId[] = "0b9c1d1e-5a1b-4c3d-8e9f-001122334455";

class NoHost : public DestinationHost {
 public:
  absl::StatusOr<std::unique_ptr<DestinationGuest>> Reserve(const GuestDescription&,
                                                            const ReservationNote&) override {
    ADD_FAILURE() << "nothing may be reserved";
    return absl::InternalError("no");
  }
};

class Versions : public testing::Test {
 protected:
  // What a destination answers to a source that speaks these versions, and then ends.
  ControlMessage AnswerTo(uint32_t oldest, uint32_t newest) {
    EXPECT_TRUE(control_.source()
                    .Send(Hello{.oldest_version = oldest,
                                .newest_version = newest,
                                .software = "ramferry 9.0",
                                .migration_id = kId})
                    .ok());
    EXPECT_TRUE(control_.source().Send(Abort{.reason = "seen enough"}).ok());
    NoHost host;
    DestinationObserver observer;
    EXPECT_FALSE(DestinationMigration(
                     {.host = host, .journal = journal_, .observer = observer, .cancel = cancel_})
                     .Run(control_.destination())
                     .ok());
    const auto answer = control_.source().Receive(In(seconds(10)));
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? *answer : ControlMessage(Abort{});
  }

  const ScratchDirectory scratch_;
  const Journal journal_ = *Journal::Open(scratch_.path() + "/state");
  FakeControlPair control_;
  Cancellation cancel_;
};

TEST_F(Versions, newer_source_that_still_speaks_ours_is_answered_in_ours) {
  const ControlMessage answer = AnswerTo(kProtocolVersion, kProtocolVersion + 3);
  ASSERT_TRUE(std::holds_alternative<HelloReply>(answer)) << NameOf(answer);
  EXPECT_EQ(std::get<HelloReply>(answer).version, kProtocolVersion);
}

TEST_F(Versions, newer_source_that_no_longer_speaks_ours_is_refused_with_the_reason) {
  const ControlMessage answer = AnswerTo(kProtocolVersion + 1, kProtocolVersion + 3);
  ASSERT_TRUE(std::holds_alternative<Refused>(answer)) << NameOf(answer);
  ASSERT_EQ(std::get<Refused>(answer).reasons.size(), 1U);
  EXPECT_THAT(std::get<Refused>(answer).reasons[0],
              testing::AllOf(HasSubstr("ramferry 9.0 speaks protocol versions"),
                             HasSubstr("use the same release")));
  EXPECT_TRUE(journal_.ReadAll()->empty());
}

TEST_F(Versions, older_source_is_refused_with_the_reason) {
  const ControlMessage answer = AnswerTo(0, kOldestProtocolVersion - 1);
  ASSERT_TRUE(std::holds_alternative<Refused>(answer)) << NameOf(answer);
  EXPECT_THAT(std::get<Refused>(answer).reasons[0], HasSubstr("use the same release"));
}

TEST_F(Versions, destination_that_wants_another_one_is_left_with_the_guest_untouched) {
  for (const uint32_t version : {kOldestProtocolVersion - 1, kProtocolVersion + 1}) {
    FakeControlPair control;
    const auto guest = *SyntheticGuest::Create({.name = "web1", .regions = {{"ram", MiB(1)}}});
    ASSERT_TRUE(
        control.destination().Send(HelloReply{.version = version, .software = "ramferry 9"}).ok());
    MigrationObserver observer;
    SourceMigration migration({.guest = *guest,
                               .locator = "synthetic",
                               .control = control.source(),
                               .destination = "destination.test",
                               .journal = journal_,
                               .settle = [](const std::string&) { return Verdict::kUnknown; },
                               .confirm = [](const std::string&) {},
                               .observer = observer,
                               .cancel = cancel_});
    const MigrationReport report = migration.Run();
    EXPECT_EQ(report.outcome, Outcome::kRolledBack);
    EXPECT_EQ(report.stage, Stage::kPreMigration);
    EXPECT_THAT(report.error, HasSubstr("use the same release"));
    EXPECT_FALSE(guest->tracked());
    EXPECT_TRUE(journal_.ReadAll()->empty());
  }
}

}  // namespace
}  // namespace ramferry
