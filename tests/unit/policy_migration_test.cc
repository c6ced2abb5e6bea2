// Whole migrations under the policies: whatever is skipped, held or throttled, the image is the
// same and the guest is given back its time.
#include <gmock/gmock.h>

#include <algorithm>
#include <mutex>

#include "tests/unit/engine_site.h"

namespace ramferry {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::Field;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// The order of some of the engine's calls.
class Calls {
 public:
  void Add(std::string_view call) {
    if (call == "CollectDirty" || call == "PeekDirty") return;
    const std::lock_guard lock(mutex_);
    calls_.emplace_back(call);
  }
  [[nodiscard]] std::vector<std::string> all() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> calls_;
};

// A guest that writes its working set again in each round, however slow this machine is: it is sent
// at 6 MiB/s.
void MakeRogue(MigrationSite& site, Calls& calls, enum NotConverging choice) {
  site.options.bandwidth = MiB(6);
  site.options.downtime_target = milliseconds(40);
  site.options.not_converging = choice;
  site.on_source = [&calls](std::string_view call) {
    calls.Add(call);
    return absl::OkStatus();
  };
}

size_t IndexOf(const std::vector<std::string>& calls, const std::string& call) {
  return static_cast<size_t>(std::find(calls.begin(), calls.end(), call) - calls.begin());
}

TEST(PolicyMigration, throttle_is_taken_off_as_soon_as_the_guest_stands_still) {
  MigrationSite site;
  Calls calls;
  MakeRogue(site, calls, NotConverging::kThrottle);
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  const auto all = calls.all();
  const size_t on = IndexOf(all, "Throttle");
  const size_t off = IndexOf(all, "Unthrottle");
  ASSERT_LT(on, off);
  ASSERT_LT(off, all.size());
  EXPECT_LT(IndexOf(all, "WaitPaused"), off);
  EXPECT_LT(off, IndexOf(all, "SaveDeviceState"));
  EXPECT_THAT(site.notes(), Contains(HasSubstr("% of their time")));
}

TEST(PolicyMigration, guest_that_cannot_be_throttled_stays_and_says_why) {
  MigrationSite site;
  Calls calls;
  MakeRogue(site, calls, NotConverging::kThrottle);
  site.on_source = [](std::string_view call) {
    return call == "Throttle" ? absl::UnimplementedError("no such lever") : absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  site.ExpectRolledBack(report);
  EXPECT_THAT(report.error, HasSubstr("no such lever"));
  EXPECT_THAT(report.error, HasSubstr("does not converge"));
}

TEST(PolicyMigration, throttled_guest_of_a_cancelled_migration_is_rolled_back) {
  MigrationSite site;
  Calls calls;
  MakeRogue(site, calls, NotConverging::kThrottle);
  site.on_source = [&](std::string_view call) {
    calls.Add(call);
    if (call == "Throttle") site.cancel().Request("enough");
    return absl::OkStatus();
  };
  site.ExpectRolledBack(site.Migrate());
  EXPECT_THAT(calls.all(), Contains("RollBack"));
}

TEST(PolicyMigration, found_out_with_the_numbers_long_before_the_last_round) {
  MigrationSite site;
  Calls calls;
  MakeRogue(site, calls, NotConverging::kGiveUp);
  site.options.max_rounds = 1000;
  const MigrationReport report = site.Migrate();
  site.ExpectRolledBack(report);
  EXPECT_LT(report.rounds.size(), 100U);
  EXPECT_THAT(report.error, HasSubstr("MiB a second are sent"));
  EXPECT_THAT(report.error, HasSubstr("over the target of 40 ms"));
}

TEST(PolicyMigration, waits_until_the_guest_writes_less) {
  MigrationSite site;
  Calls calls;
  MakeRogue(site, calls, NotConverging::kWait);
  site.options.max_rounds = 5;
  uint32_t waited = 0;
  site.on_round = [&](const RoundReport& round) {
    const auto& notes = site.notes();
    const bool waits = std::any_of(notes.begin(), notes.end(), [](const std::string& note) {
      return note.find("waiting until it writes less") != std::string::npos;
    });
    if (round.stopped || !waits) return;
    if (++waited == 3) {
      EXPECT_TRUE(site.guest().Quiesce().ok());  // it calms down
    }
  };
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  EXPECT_GE(waited, 3U);
  EXPECT_THAT(report.rounds, Contains(Field(&RoundReport::idle_ms, 500)));
  EXPECT_THAT(site.notes(), Contains(HasSubstr("waiting until it writes less")));
}

// Each mechanism by itself, and all of them, on a guest that is skipped and held a lot.
TEST(PolicyMigration, image_is_the_same_with_any_mechanism_on_or_off) {
  for (const unsigned bits : {0U, 1U, 3U, 4U, 7U}) {
    for (const bool quiesced : {false, true}) {
      MigrationSite site(quiesced);
      Calls calls;
      MakeRogue(site, calls, NotConverging::kStopAnyway);
      site.options.bandwidth = MiB(80);
      site.options.max_rounds = 6;
      site.options.verify = true;
      site.options.mechanisms = {
          .skip = (bits & 1) != 0, .hold = (bits & 2) != 0, .instant = (bits & 4) != 0};
      const MigrationReport report = site.Migrate();
      site.ExpectMigrated(report);
      EXPECT_TRUE(report.verified);
      uint64_t skipped = 0;
      for (const RoundReport& round : report.rounds) skipped += round.skipped_pages.value();
      EXPECT_EQ(skipped > 0, site.options.mechanisms.skip) << bits;
    }
  }
}

TEST(PolicyMigration, rate_follows_the_guest_from_the_least_to_the_most) {
  MigrationSite site;
  site.options.least_bandwidth = MiB(16);
  site.options.bandwidth = MiB(64);
  site.options.bandwidth_step = MiB(16);
  site.options.downtime_target = milliseconds(25);
  site.options.not_converging = NotConverging::kStopAnyway;
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  EXPECT_EQ(report.rounds[0].rate_limit, MiB(16));
  for (const RoundReport& round : report.rounds) EXPECT_LE(round.rate_limit, MiB(64));
}

// From then on every moment may be one in which it stands still.
TEST(PolicyMigration, nothing_is_limited_once_the_guest_was_asked_to_stop) {
  MigrationSite site;
  bool asked = false;
  std::vector<ByteCount> before;
  std::vector<ByteCount> after;
  site.options.bandwidth = MiB(64);
  site.stop_late = 3;
  site.on_source = [&](std::string_view call) {
    if (call == "BeginPause") asked = true;
    return absl::OkStatus();
  };
  site.on_round = [&](const RoundReport& round) {
    (asked ? after : before).push_back(round.rate_limit);
  };
  site.ExpectMigrated(site.Migrate());
  EXPECT_THAT(before, AllOf(Not(IsEmpty()), Each(MiB(64))));
  EXPECT_THAT(after, AllOf(SizeIs(Ge(4)), Each(ByteCount(0))));
}

// The guest's working set as a test wants it: so many pages are dirty at the end of each round.
TEST(PolicyMigration, small_rounds_before_a_stop_that_did_not_come_about_are_not_counted) {
  MigrationSite site;
  ASSERT_TRUE(site.guest().Quiesce().ok());
  // Small rounds bring it down; then the guest writes more than may be left, twice.
  const std::vector<uint64_t> dirty = {80, 50, 35, 2400, 2400, 2400, 50};
  std::atomic<size_t> rounds{0};
  site.options = {.downtime_target = milliseconds(220),
                  .max_rounds = 4,
                  .workers = 1,
                  .bandwidth = MiB(32),
                  .mechanisms = {.skip = false, .hold = false}};
  site.on_source = [&](std::string_view call) {
    // Only the count after a round peeks, at every slice.
    if (call != "PeekDirty" || rounds >= dirty.size()) return absl::OkStatus();
    for (uint64_t page = 0; page < dirty[rounds]; ++page) {
      site.guest().memory()[0].address[page * kPageBytes] = std::byte(rounds + 1);
    }
    return absl::OkStatus();
  };
  site.on_round = [&](const RoundReport&) { ++rounds; };
  site.ExpectMigrated(site.Migrate());
}

}  // namespace
}  // namespace ramferry
