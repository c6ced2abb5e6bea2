// The meter against guests whose writing is known, on a clock that a test turns.
#include "engine/working_set_meter.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/synthetic/synthetic_guest.h"

namespace ramferry {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

class TurnedClock : public MeterClock {
 public:
  double NowMs() override { return now_; }
  absl::Status SleepUntil(double ms) override {
    now_ = std::max(now_, ms);
    ++sleeps_;
    if (cancelled_after > 0 && sleeps_ >= cancelled_after) return absl::CancelledError("enough");
    return absl::OkStatus();
  }
  void Spend(double ms) { now_ += ms; }
  int cancelled_after = 0;

 private:
  double now_ = 0;
  int sleeps_ = 0;
};

// Writes each page of its working set at a moment of its own in every period.
class ScriptedGuest : public SourceGuest {
 public:
  ScriptedGuest(TurnedClock& clock, uint64_t pages) : clock_(clock), collected_(pages, -1) {
    description_.name = "scripted";
    description_.vcpus = 1;
    MappedRegion region;
    region.description = {.name = "ram0", .size = BytesIn(PageCount(pages))};
    description_.regions = {region.description};
    regions_ = {region};
  }

  uint64_t first = 0;  // of the working set
  uint64_t set = 0;
  double period_ms = 1000;
  double look_ms_per_gib = 0;  // what looking costs
  bool quiesced_only = false;
  uint64_t faults = 0;  // writes to collected pages, noted

  const GuestDescription& description() const override { return description_; }
  std::span<const MappedRegion> regions() const override { return regions_; }
  absl::Status StartTracking() override { return absl::OkStatus(); }
  absl::Status PopulatedRuns(const Slice& slice, PageRuns& runs) override {
    AppendRun(runs, {slice.pages.first, slice.pages.count / 2});
    return absl::OkStatus();
  }
  absl::Status CollectDirty(const Slice& slice, PageRuns& runs) override {
    EXPECT_TRUE(PeekDirty(slice, runs).ok());
    for (const PageRun& run : runs) {
      for (uint64_t page = run.first; page < run.end(); ++page) {
        if (collected_[page] >= 0) ++faults;
      }
    }
    for (uint64_t page = slice.pages.first; page < slice.pages.end(); ++page) {
      collected_[page] = clock_.NowMs();
    }
    return absl::OkStatus();
  }
  absl::Status PeekDirty(const Slice& slice, PageRuns& runs) override {
    for (uint64_t page = slice.pages.first; page < slice.pages.end(); ++page) {
      if (Dirty(page)) AppendRun(runs, {page, 1});
    }
    clock_.Spend(look_ms_per_gib * static_cast<double>(slice.pages.count) / 262144);
    return absl::OkStatus();
  }
  bool sees_writes_only_when_quiesced() const override { return quiesced_only; }
  absl::Status BeginPause(DeviceStateSink /*sink*/) override { return absl::OkStatus(); }
  absl::StatusOr<bool> WaitPaused(Deadline /*deadline*/) override { return true; }
  Deadline paused_at() const override { return {}; }
  absl::Status SaveDeviceState() override { return absl::OkStatus(); }
  absl::Status Commit() override { return absl::OkStatus(); }
  absl::Status RollBack() override { return absl::OkStatus(); }
  absl::Status LeaveStopped() override { return absl::OkStatus(); }

 private:
  [[nodiscard]] bool Dirty(uint64_t page) const {
    if (collected_[page] < 0) return true;
    if (page < first || page >= first + set) return false;
    // Page after page, so that after a part of the period that part of the set was written.
    const double phase = period_ms * static_cast<double>(page - first) / static_cast<double>(set);
    return std::floor((clock_.NowMs() - phase) / period_ms) >
           std::floor((collected_[page] - phase) / period_ms);
  }

  TurnedClock& clock_;
  GuestDescription description_;
  std::vector<MappedRegion> regions_;
  std::vector<double> collected_;
};

constexpr uint64_t kGuestPages = 64 * 1024;  // 256 MiB

TEST(WorkingSetMeter, finds_how_many_pages_are_written_within_each_interval) {
  TurnedClock clock;
  ScriptedGuest guest(clock, kGuestPages);
  guest.first = 10 * 512;
  guest.set = 8 * 512;
  const auto set = MeasureWorkingSet(guest, {.time = milliseconds(20'000)}, clock);
  ASSERT_TRUE(set.ok()) << set.status();
  const DirtyTrace& trace = set->trace;
  const GrowthCurve curve = trace.Curve();
  EXPECT_NEAR(curve.At(0.1), 0.1 * 4096, 0.02 * 4096);
  EXPECT_NEAR(curve.At(0.5), 0.5 * 4096, 0.03 * 4096);
  EXPECT_NEAR(curve.At(1.5), 4096, 0.01 * 4096);
  EXPECT_NEAR(curve.At(100), 4096, 0.01 * 4096);  // it has seen all that there is to see
  EXPECT_NEAR(trace.blocks.back(), 8, 0.5);
  EXPECT_EQ(trace.memory(), PageCount(kGuestPages));
  EXPECT_EQ(trace.contents(), PageCount(kGuestPages / 2));
  EXPECT_EQ(set->share, 1);
  // Where it is: the hot blocks are those of the working set.
  ASSERT_FALSE(trace.hottest.empty());
  for (const HotBlock& block : trace.hottest) {
    EXPECT_GE(block.first_page, guest.first);
    EXPECT_LT(block.first_page, guest.first + guest.set);
    EXPECT_EQ(block.region, "ram0");
  }
  EXPECT_TRUE(trace.activity.empty()) << "a steady guest";
  EXPECT_EQ(trace.timeline.size(), 5U);
  // And it is a trace that predict can read.
  EXPECT_TRUE(ParseDirtyTrace(FormatDirtyTrace(trace)).ok());
}

TEST(WorkingSetMeter, page_costs_the_guest_one_fault_an_epoch) {
  TurnedClock clock;
  ScriptedGuest guest(clock, kGuestPages);
  guest.set = 2048;
  guest.period_ms = 10;  // hot: each of them a hundred times a second
  const auto set = MeasureWorkingSet(guest, {.time = milliseconds(20'000)}, clock);
  ASSERT_TRUE(set.ok());
  EXPECT_LE(guest.faults, 5 * 2048U);
  EXPECT_LE(set->faults, 5 * 2048.0);
  EXPECT_LT(set->cost, 0.01);
}

// All of its memory, all the time: too much to watch.
TEST(WorkingSetMeter, keeps_under_its_budget_by_watching_less) {
  TurnedClock clock;
  ScriptedGuest guest(clock, 4 * kGuestPages);
  guest.set = 4 * kGuestPages;
  const auto set = MeasureWorkingSet(guest, {.time = milliseconds(20'000)}, clock);
  ASSERT_TRUE(set.ok());
  EXPECT_LT(set->share, 0.2);
  EXPECT_LT(set->cost, 0.015);
  // What it did not watch it estimates.
  EXPECT_NEAR(set->trace.Curve().At(2), 4.0 * kGuestPages, 0.05 * 4 * kGuestPages);
  EXPECT_NEAR(set->trace.Curve().At(0.5), 2.0 * kGuestPages, 0.3 * 4 * kGuestPages);
}

TEST(WorkingSetMeter, takes_looks_that_take_long_for_what_they_are) {
  TurnedClock clock;
  ScriptedGuest guest(clock, kGuestPages);
  guest.set = 4096;
  guest.period_ms = 2000;
  guest.look_ms_per_gib = 160;  // 40 ms a look
  const auto set = MeasureWorkingSet(guest, {.time = milliseconds(20'000)}, clock);
  ASSERT_TRUE(set.ok());
  EXPECT_NEAR(set->trace.Curve().At(1), 2048, 150);
  for (const DirtyEpoch& epoch : set->trace.timeline) {
    for (size_t i = 1; i < epoch.samples.size(); ++i) {
      EXPECT_GT(epoch.samples[i].ms, epoch.samples[i - 1].ms);
    }
  }
}

TEST(WorkingSetMeter, ends_when_somebody_wants_it_to) {
  TurnedClock clock;
  ScriptedGuest guest(clock, kGuestPages);
  clock.cancelled_after = 7;
  EXPECT_TRUE(absl::IsCancelled(MeasureWorkingSet(guest, {}, clock).status()));
}

TEST(WorkingSetMeter, refuses_a_kernel_that_would_have_to_stop_the_guest) {
  TurnedClock clock;
  ScriptedGuest guest(clock, kGuestPages);
  guest.quiesced_only = true;
  const auto set = MeasureWorkingSet(guest, {}, clock);
  EXPECT_TRUE(absl::IsFailedPrecondition(set.status()));
  EXPECT_THAT(std::string(set.status().message()), HasSubstr("Linux 6.7"));
}

// With real memory, real tracking and the real clock; only what cannot depend on speed is checked.
TEST(WorkingSetMeter, measures_real_memory_and_leaves_it_as_it_was) {
  auto guest = SyntheticGuest::Create({.regions = {{.name = "ram", .size = MiB(16)}}});
  if (!guest.ok()) GTEST_SKIP() << guest.status();
  std::fill_n((*guest)->memory()[0].address, MiB(4).value(), std::byte{1});
  (*guest)->StartMutators(1, [](std::span<const MappedRegion> memory, unsigned, uint64_t step) {
    memory[0].address[(step % 256) * kPageBytes] = static_cast<std::byte>(step | 1);
  });
  if (const absl::Status tracked = (*guest)->StartTracking(); !tracked.ok()) {
    GTEST_SKIP() << tracked;
  }
  const Cancellation cancel;
  RealMeterClock clock(cancel);
  const auto set = MeasureWorkingSet(**guest, {.time = milliseconds(2000), .epochs = 2}, clock);
  if (absl::IsFailedPrecondition(set.status())) GTEST_SKIP() << set.status();
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->trace.contents(), PagesCovering(MiB(4)));
  EXPECT_LE(set->trace.Curve().At(0.5), 256);
  EXPECT_GT(set->trace.Curve().At(0.5), 0);
  ASSERT_TRUE((*guest)->RollBack().ok());
  EXPECT_FALSE((*guest)->tracked());
}

}  // namespace
}  // namespace ramferry
