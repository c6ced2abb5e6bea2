// A source with a good certificate that does not keep to the protocol: refused with the reason, its
// guest given up and never run, nothing left that could be asked about.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "engine/destination_migration.h"
#include "tests/unit/engine_scratch.h"
#include "tests/unit/engine_site.h"
#include "tests/unit/fake_control_channel.h"
#include "transport/tcp/tcp_listener.h"

namespace ramferry {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

constexpr char kId[] = "0b9c1d1e-5a1b-4c3d-8e9f-001122334455";
constexpr uint64_t kGuest = 1 << 20;

class LyingSource : public testing::Test, private DestinationHost {
 protected:
  // What the destination says in the end to a source that sends all this after its reservation.
  std::string RefusalOf(const std::vector<ControlMessage>& lies) {
    FakeControlPair control;
    const Hello hello{.oldest_version = kOldestProtocolVersion,
                      .newest_version = kProtocolVersion,
                      .software = "liar",
                      .migration_id = kId};
    EXPECT_TRUE(control.source().Send(hello).ok());
    EXPECT_TRUE(control.source().Send(reserve_).ok());
    for (const ControlMessage& lie : lies) EXPECT_TRUE(control.source().Send(lie).ok());
    calls_.clear();
    DestinationMigration migration({.host = *this,
                                    .listeners = {listener_.get()},
                                    .journal = journal_,
                                    .observer = observer_,
                                    .cancel = cancel_,
                                    .most_held_state = 1000});
    EXPECT_FALSE(migration.Run(control.destination()).ok());
    EXPECT_THAT(calls_, Contains("Discard"));
    EXPECT_THAT(calls_, Not(Contains("Activate")));
    while (true) {
      const auto answer = control.source().Receive(In(std::chrono::seconds(10)));
      EXPECT_TRUE(answer.ok()) << answer.status();
      if (!answer.ok()) return "";
      if (const auto* refused = std::get_if<Refused>(&*answer)) return refused->reasons.at(0);
    }
  }

  const ramferry::Reserve reserve_{
      .guest = {.name = "web1",
                .hypervisor = "synthetic",
                .regions = {{.name = "ram", .size = ByteCount(kGuest)}}},
      .channels = 1,
      .transports = {"tcp"}};
  const ScratchDirectory scratch_;
  const Journal journal_ = *Journal::Open(scratch_.path() + "/state");

 private:
  absl::StatusOr<std::unique_ptr<DestinationGuest>> Reserve(const GuestDescription& description,
                                                            const ReservationNote& note) override {
    ASSIGN_OR_RETURN(auto guest, SyntheticDestination::Create(description));
    RETURN_IF_ERROR(note("synthetic", ""));
    return std::make_unique<HookedDestination>(std::move(guest), [this](std::string_view call) {
      calls_.emplace_back(call);
      return absl::OkStatus();
    });
  }

  std::unique_ptr<TcpListener> listener_ = *TcpListener::Create("127.0.0.1", 0, {});
  std::vector<std::string> calls_;  // of the guest
  DestinationObserver observer_;
  Cancellation cancel_;
};

TEST_F(LyingSource, that_leaves_something_out_is_told_what_was_due) {
  EXPECT_THAT(RefusalOf({HandOver{}}), HasSubstr("sent HandOver where a round, device state"));
  EXPECT_THAT(RefusalOf({reserve_}), HasSubstr("sent Reserve where a round, device state"));
  EXPECT_THAT(RefusalOf({ImageComplete{}}), HasSubstr("before the guest was stopped"));
  EXPECT_TRUE(journal_.ReadAll()->empty());
}

TEST_F(LyingSource, that_miscounts_its_device_state_is_refused) {
  EXPECT_THAT(RefusalOf({Paused{}, ImageComplete{.device_state_bytes = 5}}),
              HasSubstr("0 bytes of device state came, the source sent 5"));
  EXPECT_TRUE(journal_.ReadAll()->empty());
}

TEST_F(LyingSource, cannot_fill_the_memory_with_device_state) {
  const DeviceState piece{.bytes = std::vector<std::byte>(600)};
  EXPECT_THAT(RefusalOf({Paused{}, piece, piece}), HasSubstr("device state is larger than 1000"));
  EXPECT_TRUE(journal_.ReadAll()->empty());
}

TEST_F(LyingSource, that_wants_memory_compared_that_the_guest_does_not_have_is_refused) {
  const std::string digest(32, 'x');
  constexpr uint64_t kPages = kGuest / kPageBytes;
  for (const Slice& slice :
       {Slice{.region = 1, .pages = {0, 1}}, Slice{.region = 0, .pages = {kPages, 1}},
        Slice{.region = 0, .pages = {1, kPages}}, Slice{.region = 0, .pages = {~uint64_t{0}, 2}}}) {
    EXPECT_THAT(RefusalOf({Paused{}, ImageComplete{.digests = {{slice, digest}}}}),
                HasSubstr("memory that the guest does not have"));
  }
  EXPECT_TRUE(journal_.ReadAll()->empty());
}

// It may be asked about the guest from here on, and keeps its word.
TEST_F(LyingSource, that_says_something_else_instead_of_handing_over_gets_nothing_run) {
  DeviceState state;
  for (const char letter : std::string("steps=1")) {
    state.bytes.push_back(static_cast<std::byte>(letter));
  }
  EXPECT_THAT(RefusalOf({Paused{}, state, ImageComplete{.device_state_bytes = 7}, Paused{}}),
              HasSubstr("sent Paused where HandOver was due"));
  const auto entries = journal_.ReadAll();
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->entries.size(), 1U);
  EXPECT_EQ(entries->entries.front().phase, Phase::kReleased);
}

}  // namespace
}  // namespace ramferry
