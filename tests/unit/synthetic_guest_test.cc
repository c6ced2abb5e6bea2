// The synthetic guest keeps the promises of guest.h, so that tests which use it mean something.
#include "hypervisor-glue/synthetic/synthetic_guest.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

namespace ramferry {
namespace {

using std::chrono::milliseconds;

std::unique_ptr<SyntheticGuest> Guest() {
  return *SyntheticGuest::Create({.regions = {{"ram", MiB(4)}, {"rom", MiB(1)}}});
}

// Counts in the first word of page `step` of region 0.
void CountUp(std::span<const MappedRegion> regions, unsigned thread, uint64_t step) {
  std::byte* page = regions[0].address + (step % 512 + thread * 512) * kPageBytes;
  std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(page)).fetch_add(1);
}

uint64_t Sum(const SyntheticGuest& guest) {
  uint64_t sum = 0;
  for (uint64_t page = 0; page < 1024; ++page) {
    sum += std::atomic_ref<uint64_t>(
               *reinterpret_cast<uint64_t*>(guest.memory()[0].address + page * kPageBytes))
               .load();
  }
  return sum;
}

void WaitUntilItHasRun(const SyntheticGuest& guest) {
  const uint64_t before = Sum(guest);
  const Deadline deadline = In(std::chrono::seconds(30));
  while (Sum(guest) == before && Clock::now() < deadline) std::this_thread::yield();
  EXPECT_NE(Sum(guest), before) << "the guest does not run";
}

TEST(SyntheticGuest, is_described_as_it_is) {
  const auto guest = Guest();
  EXPECT_EQ(guest->description().regions.size(), 2U);
  ASSERT_EQ(guest->regions().size(), 2U);
  EXPECT_EQ(guest->regions()[1].pages(), 256U);
  EXPECT_TRUE(guest->running());
  EXPECT_FALSE(guest->tracked());
  EXPECT_TRUE(guest->description().running);
}

TEST(SyntheticGuest, a_paused_guest_writes_nothing_and_its_state_counts_every_step) {
  const auto guest = Guest();
  guest->StartMutators(2, CountUp);
  WaitUntilItHasRun(*guest);
  std::string state;
  ASSERT_TRUE(guest
                  ->BeginPause([&state](std::span<const std::byte> bytes) {
                    state.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
                    return absl::OkStatus();
                  })
                  .ok());
  ASSERT_TRUE(*guest->WaitPaused(In(milliseconds(1))));
  EXPECT_FALSE(guest->running());
  EXPECT_LE(guest->paused_at(), Clock::now());
  const uint64_t then = Sum(*guest);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(Sum(*guest), then);
  ASSERT_TRUE(guest->SaveDeviceState().ok());
  EXPECT_EQ(state, "steps=" + std::to_string(then));
  ASSERT_TRUE(guest->RollBack().ok());
  WaitUntilItHasRun(*guest);
}

TEST(SyntheticGuest, roll_back_works_in_every_state_and_twice) {
  const auto guest = Guest();
  guest->StartMutators(1, CountUp);
  EXPECT_TRUE(guest->RollBack().ok());
  ASSERT_TRUE(guest->StartTracking().ok());
  EXPECT_TRUE(guest->tracked());
  EXPECT_TRUE(guest->RollBack().ok());
  EXPECT_FALSE(guest->tracked());
  EXPECT_TRUE(guest->RollBack().ok());
  ASSERT_TRUE(guest->StartTracking().ok()) << "tracking can begin again";
  ASSERT_TRUE(*guest->WaitPaused(In(milliseconds(1))));
  EXPECT_TRUE(guest->RollBack().ok());
  WaitUntilItHasRun(*guest);
}

TEST(SyntheticGuest, quiescing_stops_every_writer_for_a_while) {
  const auto guest = Guest();
  guest->StartMutators(2, CountUp);
  WaitUntilItHasRun(*guest);
  ASSERT_TRUE(guest->Quiesce().ok());
  const uint64_t then = Sum(*guest);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(Sum(*guest), then);
  ASSERT_TRUE(guest->Unquiesce().ok());
  WaitUntilItHasRun(*guest);
}

TEST(SyntheticGuest, left_stopped_it_is_stopped_and_untracked) {
  const auto guest = Guest();
  guest->StartMutators(1, CountUp);
  ASSERT_TRUE(guest->StartTracking().ok());
  ASSERT_TRUE(*guest->WaitPaused(In(milliseconds(1))));
  ASSERT_TRUE(guest->LeaveStopped().ok());
  EXPECT_FALSE(guest->running());
  EXPECT_FALSE(guest->tracked());
}

TEST(SyntheticGuest, a_guest_that_has_gone_takes_no_memory) {
  const auto guest = Guest();
  std::memset(guest->memory()[0].address, 1, MiB(4).value());
  ASSERT_TRUE(guest->StartTracking().ok());
  ASSERT_TRUE(guest->Commit().ok());
  EXPECT_TRUE(guest->committed());
  EXPECT_FALSE(guest->tracked());
  PageRuns runs;
  ASSERT_TRUE(guest->PopulatedRuns({.region = 0, .pages = {0, 1024}}, runs).ok());
  EXPECT_TRUE(runs.empty());
}

TEST(SyntheticDestination, begins_empty_takes_a_state_in_pieces_and_leaves_nothing) {
  const auto guest = Guest();
  const auto destination = *SyntheticDestination::Create(guest->description());
  PageRuns runs;
  ASSERT_TRUE(destination->PopulatedRuns({.region = 0, .pages = {0, 1024}}, runs).ok());
  EXPECT_TRUE(runs.empty());
  EXPECT_FALSE(destination->FinishDeviceState(In(milliseconds(1))).ok()) << "there was none yet";
  const std::string state = "steps=12";
  for (const char& letter : state) {
    ASSERT_TRUE(destination->LoadDeviceState(std::as_bytes(std::span(&letter, 1))).ok());
  }
  EXPECT_TRUE(destination->FinishDeviceState(In(milliseconds(1))).ok());
  EXPECT_FALSE(destination->active());
  ASSERT_TRUE(destination->Activate().ok());
  EXPECT_TRUE(destination->active());
  destination->regions()[0].address[0] = std::byte(1);
  ASSERT_TRUE(destination->Discard().ok());
  ASSERT_TRUE(destination->Discard().ok());
  ASSERT_TRUE(destination->PopulatedRuns({.region = 0, .pages = {0, 1024}}, runs).ok());
  EXPECT_TRUE(runs.empty());
}

}  // namespace
}  // namespace ramferry
