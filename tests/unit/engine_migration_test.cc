// Whole migrations that go well, and those that are refused or given up for a good reason.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <set>
#include <string>
#include <thread>

#include "base/status.h"
#include "tests/unit/engine_site.h"

namespace ramferry {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class MigrationByWorkers : public ::testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Workers, MigrationByWorkers, ::testing::Values(1, 4),
                         ::testing::PrintToStringParamName());

TEST_P(MigrationByWorkers, a_working_guest_arrives_bit_by_bit_and_the_source_forgets_it) {
  MigrationSite site;
  site.options.workers = GetParam();
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  EXPECT_TRUE(site.destination_status().ok()) << site.destination_status();
  EXPECT_EQ(report.workers, GetParam());
  EXPECT_EQ(report.transport, "tcp");
  EXPECT_EQ(report.device_state_bytes.value(), site.destination()->device_state().size());
  ASSERT_GE(report.rounds.size(), 2U);
  EXPECT_TRUE(report.rounds.back().stopped);
  EXPECT_FALSE(report.rounds.front().stopped);
  EXPECT_GT(report.downtime_ms, 0);
  EXPECT_LE(report.downtime_parts.total(), report.downtime_ms + 1);
  EXPECT_TRUE(site.journal(Role::kSource).ReadAll()->empty());
  EXPECT_TRUE(site.journal(Role::kDestination).ReadAll()->empty());
}

TEST_P(MigrationByWorkers, verify_passes_for_a_good_image) {
  MigrationSite site;
  site.options.workers = GetParam();
  site.options.verify = true;
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  EXPECT_TRUE(report.verified);
}

TEST_P(MigrationByWorkers, a_guest_with_direct_io_is_collected_only_while_it_is_quiesced) {
  MigrationSite site(/*needs_quiesced_collection=*/true);
  site.options.workers = GetParam();
  site.stop_late = 3;
  std::atomic<int> quiesced{0};
  std::atomic<int> outside{0};
  std::atomic<int> times{0};
  site.on_source = [&](std::string_view call) {
    if (call == "Quiesce") times.fetch_add(1);
    if (call == "Quiesce") quiesced = 1;
    if (call == "Unquiesce") quiesced = 0;
    if (call == "CollectDirty" && quiesced == 0 && site.guest().running()) outside.fetch_add(1);
    return absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  EXPECT_EQ(outside.load(), 0) << "a page was collected while a disk could write to it";
  EXPECT_GE(times.load(), 1);
}

// As soft-dirty bits are read: all of them at once, while the guest stands still.
TEST(Migration, what_collecting_takes_is_in_the_predicted_downtime) {
  MigrationSite site(/*needs_quiesced_collection=*/true);
  site.options.downtime_target = std::chrono::seconds(60);
  site.on_source = [&](std::string_view call) {
    if (call == "Quiesce") std::this_thread::sleep_for(std::chrono::milliseconds(300));
    return absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  EXPECT_GE(report.rounds[0].quiesced_ms, 300);
  EXPECT_GE(report.predicted_downtime_ms, 600);
}

TEST(Migration, a_round_under_way_tells_how_far_it_is) {
  MigrationSite site;
  site.options.workers = 1;
  std::atomic<int> parts{0};
  std::atomic<bool> told{false};
  // The third part is not sent before two are seen to be done.
  site.on_source = [&](std::string_view call) -> absl::Status {
    if (call != "PeekDirty" || parts.fetch_add(1) != 2) return absl::OkStatus();
    for (const Deadline end = In(std::chrono::seconds(60)); !told; std::this_thread::yield()) {
      if (Clock::now() > end) return absl::DeadlineExceededError("nobody was told");
    }
    return absl::OkStatus();
  };
  site.on_progress = [&](const RoundProgress& progress) {
    if (progress.number != 1 || parts < 3) return;
    EXPECT_GT(progress.done, 0);
    EXPECT_LT(progress.done, 1);
    EXPECT_GT(progress.pages.value(), 0U);
    EXPECT_GT(progress.left_ms(), 0);
    told = true;
  };
  site.ExpectMigrated(site.Migrate());
}

TEST(Migration, memory_the_guest_never_touched_takes_none_at_the_destination) {
  MigrationSite site;
  site.ExpectMigrated(site.Migrate());
  // 17 MiB of guest; what is used of it and what it has touched since.
  EXPECT_LT(site.destination_memory(), MiB(16));
}

TEST(Migration, verify_catches_one_flipped_bit_and_the_guest_stays) {
  MigrationSite site;
  site.options.verify = true;
  std::atomic<bool> flipped{false};
  site.on_destination = [&](std::string_view call) {
    if (call == "PopulatedRuns" && !flipped.exchange(true)) {
      site.destination()->regions()[0].address[1234 * kPageBytes + 567] ^= std::byte(0x10);
    }
    return absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  site.ExpectRolledBack(report);
  EXPECT_FALSE(report.verified);
  EXPECT_THAT(report.error, HasSubstr("the memory differs in region ram"));
}

// As a balloon does: the guest writes nothing, the host takes the page.
TEST(Migration, memory_taken_back_from_the_guest_during_the_move_is_no_difference_to_verify) {
  MigrationSite site;
  site.options.verify = true;
  const MappedRegion region = site.guest().regions()[1];
  std::memset(site.guest().memory()[1].address + 101 * kPageBytes, 0xcd, kPageBytes);
  site.on_source = [&](std::string_view call) {
    if (call == "BeginPause") {
      EXPECT_EQ(::fallocate(region.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 101 * kPageBytes,
                            kPageBytes),
                0);
    }
    return absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  EXPECT_TRUE(report.verified);
  EXPECT_EQ(site.destination()->regions()[1].address[101 * kPageBytes], std::byte(0));
}

TEST(Migration, a_guest_that_stops_late_is_followed_by_small_rounds) {
  MigrationSite site;
  site.stop_late = 4;
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  EXPECT_GE(report.rounds.size(), 1U + 4U + 1U);
}

TEST(Migration, memory_written_while_the_devices_are_saved_arrives) {
  MigrationSite site;
  site.on_source = [&](std::string_view call) {
    if (call == "SaveDeviceState") {
      // Later than the last round of pages, most likely; as devices do.
      std::this_thread::sleep_for(milliseconds(50));
      std::memset(site.guest().memory()[1].address + 100 * kPageBytes, 0xab, kPageBytes);
    }
    return absl::OkStatus();
  };
  site.ExpectMigrated(site.Migrate());
  EXPECT_EQ(site.destination()->regions()[1].address[100 * kPageBytes], std::byte(0xab));
}

TEST(Migration, a_guest_that_does_not_converge_is_left_running_unless_stopping_was_allowed) {
  MigrationSite site;
  site.options.downtime_target = milliseconds(0);
  site.options.max_rounds = 3;
  const MigrationReport report = site.Migrate();
  site.ExpectRolledBack(report);
  EXPECT_EQ(report.rounds.size(), 3U);
  EXPECT_THAT(report.error, HasSubstr("does not converge"));
  EXPECT_THAT(site.SentToDestination(), ::testing::Not(::testing::Contains("Paused")));

  site.options.not_converging = NotConverging::kStopAnyway;
  const MigrationReport second = site.Migrate();
  site.ExpectMigrated(second);
  EXPECT_EQ(second.rounds.size(), 4U);
}

TEST(Migration, a_destination_that_refuses_is_quoted) {
  MigrationSite site;
  site.on_destination = [](std::string_view call) {
    return call == "Reserve" ? absl::ResourceExhaustedError("no room: free 17 MiB")
                             : absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  site.ExpectRolledBack(report);
  EXPECT_THAT(report.error, HasSubstr("no room: free 17 MiB"));
  EXPECT_TRUE(site.journal(Role::kSource).ReadAll()->empty());
  EXPECT_TRUE(site.journal(Role::kDestination).ReadAll()->empty());
}

TEST(Migration, a_destination_that_cannot_load_the_devices_gives_up_and_the_source_resumes) {
  for (const char* failing : {"LoadDeviceState", "FinishDeviceState"}) {
    MigrationSite site;
    site.on_destination = [failing](std::string_view call) {
      return call == failing ? absl::InvalidArgumentError("no such device: e1000")
                             : absl::OkStatus();
    };
    const MigrationReport report = site.Migrate();
    site.ExpectRolledBack(report);
    EXPECT_THAT(report.error, HasSubstr("no such device: e1000")) << failing;
  }
}

TEST(Migration, a_guest_that_cannot_be_started_there_is_handed_back_and_resumes) {
  MigrationSite site;
  std::atomic<bool> fail{true};
  site.on_destination = [&fail](std::string_view call) {
    return call == "Activate" && fail ? absl::InternalError("no vCPU starts") : absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  site.ExpectRolledBack(report);
  EXPECT_THAT(report.error, HasSubstr("gave it back"));
  EXPECT_THAT(report.error, HasSubstr("no vCPU starts"));
  EXPECT_THAT(site.SentToSource(), ::testing::Contains("HandedBack"));
  EXPECT_TRUE(site.journal(Role::kSource).ReadAll()->empty());

  fail = false;
  site.ExpectMigrated(site.Migrate());
}

TEST(Migration, a_guest_that_cannot_be_removed_there_is_not_handed_back) {
  MigrationSite site;
  site.options.settle_time = milliseconds(1);
  site.destination_hangs_up = true;
  site.on_destination = [](std::string_view call) {
    return call == "Activate" || call == "Discard" ? absl::InternalError("stuck")
                                                   : absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  EXPECT_EQ(report.outcome, Outcome::kInDoubt);
  EXPECT_FALSE(site.guest().running()) << "it could run there too";
  EXPECT_FALSE(site.guest().committed());
  EXPECT_THAT(site.SentToSource(), ::testing::Not(::testing::Contains("HandedBack")));
}

TEST(Migration, an_error_of_the_source_guest_in_any_call_rolls_back) {
  for (const char* failing :
       {"StartTracking", "CollectDirty", "BeginPause", "WaitPaused", "SaveDeviceState"}) {
    SCOPED_TRACE(failing);
    MigrationSite site;
    std::atomic<bool> fail{true};
    site.on_source = [&](std::string_view call) {
      return call == failing && fail ? absl::InternalError("qmp is gone") : absl::OkStatus();
    };
    const MigrationReport report = site.Migrate();
    site.ExpectRolledBack(report);
    EXPECT_THAT(report.error, HasSubstr("qmp is gone"));
    EXPECT_FALSE(site.destination_status().ok());
    EXPECT_TRUE(site.journal(Role::kSource).ReadAll()->empty());
    EXPECT_TRUE(site.journal(Role::kDestination).ReadAll()->empty());
    fail = false;
    site.ExpectMigrated(site.Migrate());
  }
}

TEST(Migration, a_guest_that_cannot_be_rolled_back_keeps_its_journal_entry) {
  MigrationSite site;
  site.on_source = [](std::string_view call) {
    return call == "BeginPause" || call == "RollBack" ? absl::InternalError("qmp is gone")
                                                      : absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  EXPECT_EQ(report.outcome, Outcome::kRolledBack);
  EXPECT_THAT(report.error, HasSubstr("undoing it on this host failed"));
  const auto entry = site.journal(Role::kSource).Read(report.migration_id, Role::kSource);
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->phase, Phase::kPausing);
  ASSERT_TRUE(site.guest().RollBack().ok());
}

// So that a ramferry that is killed at this moment leaves nothing that nobody knows of.
TEST(Migration, what_is_started_at_the_destination_was_written_down_before) {
  MigrationSite site;
  std::vector<Phase> written;
  site.on_destination = [&](std::string_view call) {
    if (call == "Reserve") {
      const auto entries = site.journal(Role::kDestination).ReadAll();
      EXPECT_TRUE(entries.ok()) << entries.status();
      if (entries.ok() && entries->entries.size() == 1) {
        written.push_back(entries->entries.front().phase);
      }
    }
    return absl::OkStatus();
  };
  EXPECT_EQ(site.Migrate().outcome, Outcome::kMigrated);
  EXPECT_EQ(written, std::vector{Phase::kStarting});
  written.clear();
  site.BreakJournal(Role::kDestination);
  EXPECT_EQ(site.Migrate().outcome, Outcome::kRolledBack);
  EXPECT_TRUE(written.empty());
  site.MendJournal(Role::kDestination);
}

TEST(Migration, an_old_migration_id_is_not_written_over) {
  MigrationSite site;
  FakeControlPair pair;
  const JournalEntry old{.migration_id = "00000000-0000-4000-8000-000000000001",
                         .role = Role::kDestination,
                         .phase = Phase::kActivated,
                         .guest = "web1"};
  ASSERT_TRUE(site.journal(Role::kDestination).Write(old).ok());
  struct NoHost : DestinationHost {
    absl::StatusOr<std::unique_ptr<DestinationGuest>> Reserve(const GuestDescription&,
                                                              const ReservationNote&) override {
      return absl::InternalError("reserved");
    }
  } host;
  DestinationObserver observer;
  const Cancellation cancel;
  DestinationMigration migration({.host = host,
                                  .listeners = {},
                                  .journal = site.journal(Role::kDestination),
                                  .observer = observer,
                                  .cancel = cancel});
  ASSERT_TRUE(pair.source().Send(Hello{.migration_id = old.migration_id}).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(migration.Run(pair.destination())));
  EXPECT_EQ(*site.journal(Role::kDestination).Read(old.migration_id, Role::kDestination), old);
}

// Tokens let a channel in; each is for one channel of one migration.
class RecordingConnector : public ChannelConnector {
 public:
  std::string transport() const override { return "tcp"; }
  absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> Connect(const ChannelOffer& offer,
                                                                    std::span<const MappedRegion>,
                                                                    Deadline) override {
    offers.push_back(offer);
    return absl::UnavailableError("only looking");
  }
  std::vector<ChannelOffer> offers;
};

TEST(Migration, every_channel_gets_a_token_of_its_own_that_no_other_migration_knows) {
  MigrationSite site;
  RecordingConnector recording;
  site.connector = &recording;
  site.options.workers = 5;
  for (int i = 0; i < 2; ++i) {
    const MigrationReport report = site.Migrate();
    site.ExpectRolledBack(report);
    EXPECT_THAT(report.error, HasSubstr("only looking"));
  }
  ASSERT_EQ(recording.offers.size(), 2U);
  std::set<std::string> tokens;
  for (const ChannelOffer& offer : recording.offers) {
    EXPECT_EQ(offer.tokens.size(), 5U);
    EXPECT_FALSE(offer.address.empty());
    for (const std::string& token : offer.tokens) {
      EXPECT_EQ(token.size(), 32U);
      EXPECT_TRUE(tokens.insert(token).second) << "a token was given twice";
    }
  }
}

TEST(Migration, a_channel_with_a_wrong_token_is_not_let_in) {
  MigrationSite site;
  class Forger : public ChannelConnector {
   public:
    std::string transport() const override { return "tcp"; }
    absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> Connect(
        const ChannelOffer& offer, std::span<const MappedRegion> source,
        Deadline deadline) override {
      ChannelOffer forged = offer;
      forged.tokens.back()[5] = static_cast<char>(forged.tokens.back()[5] ^ 1);
      return (*TcpConnector::Create({}))->Connect(forged, source, deadline);
    }
  } forger;
  site.connector = &forger;
  site.ExpectRolledBack(site.Migrate());
  site.connector = nullptr;
  site.ExpectMigrated(site.Migrate());
}

}  // namespace
}  // namespace ramferry
