// The plan carried out: workers bound and stealing near before far, memory bound before it is
// touched, all of it read back from the kernel. On this machine's own nodes, and, where only the
// order counts, on invented ones.
#include <sched.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "base/local_pages.h"
#include "base/numa_memory.h"
#include "engine/landing_placement.h"
#include "engine/memory_survey.h"
#include "engine/page_shipper.h"
#include "engine/source_placement.h"
#include "engine/worker_pool.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/synthetic/synthetic_guest.h"
#include "tests/unit/fake_page_channel.h"

namespace ramferry {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Workers 0 and 1 on node 0, 2 and 3 on node 1; slices 0-1, 2-4, 5-8, 9-14.
SliceQueue FourWorkers(const std::function<uint64_t(int, int)>& distance) {
  std::vector<Slice> slices;
  for (uint64_t i = 0; i < 15; ++i) slices.push_back({.region = 0, .pages = {i * 512, 512}});
  const std::vector<int> nodes = {0, 0, 1, 1};
  return SliceQueue(std::move(slices), {2, 3, 4, 6}, NearestFirst(nodes, distance));
}

uint64_t TwoNodes(int a, int b) {
  return a == b ? 10 : 20;
}

TEST(Stealing, goes_within_the_node_first_and_then_to_the_busiest_across) {
  SliceQueue queue = FourWorkers(TwoNodes);
  std::vector<size_t> taken;
  while (const auto index = queue.Take(0)) taken.push_back(*index);
  EXPECT_THAT(taken, ElementsAre(0, 1,     // its own
                                 2, 3, 4,  // its node's, though node 1 has busier workers
                                 9, 10,    // worker 3 has six left, worker 2 four
                                 5, 11, 6, 12, 7, 13, 8, 14));
}

TEST(Stealing, nearer_nodes_come_before_farther_ones) {
  std::vector<Slice> slices;
  for (uint64_t i = 0; i < 6; ++i) slices.push_back({.region = 0, .pages = {i * 512, 512}});
  const std::vector<int> nodes = {0, 1, 2};
  SliceQueue queue(slices, {1, 3, 2}, NearestFirst(nodes, [](int a, int b) -> uint64_t {
                     return a == b ? 10 : a + b == 1 ? 32 : 12;  // 0 and 1 are far from each other
                   }));
  std::vector<size_t> taken;
  while (const auto index = queue.Take(0)) taken.push_back(*index);
  EXPECT_THAT(taken, ElementsAre(0, 4, 5, 1, 2, 3));
}

TEST(Stealing, without_an_order_everybody_keeps_to_its_own) {
  std::vector<Slice> slices;
  for (uint64_t i = 0; i < 4; ++i) slices.push_back({.region = 0, .pages = {i * 512, 512}});
  SliceQueue queue(slices, {3, 1}, StealOrder(2));
  EXPECT_EQ(queue.Take(1), 3U);
  EXPECT_EQ(queue.Take(1), std::nullopt);
  EXPECT_EQ(queue.Take(0), 0U);
}

TEST(Stealing, many_threads_take_each_slice_once) {
  for (int round = 0; round < 50; ++round) {
    SliceQueue queue = FourWorkers(TwoNodes);
    std::vector<std::atomic<int>> taken(15);
    std::vector<std::thread> threads;
    for (uint32_t worker = 0; worker < 4; ++worker) {
      threads.emplace_back([&, worker] {
        while (const auto index = queue.Take(worker)) taken[*index].fetch_add(1);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& times : taken) ASSERT_EQ(times.load(), 1);
  }
}

bool KernelTellsNodes() {
  alignas(4096) static std::byte page[4096];
  *static_cast<volatile std::byte*>(page) = std::byte{1};
  const uint64_t address = reinterpret_cast<uint64_t>(&page);
  int node = -1;
  NodesOfAddresses(0, {&address, 1}, {&node, 1});
  return node >= 0;
}

TEST(Layout, what_workers_write_all_the_time_shares_no_cache_line) {
  static_assert(alignof(ShippedPages) >= 64 && sizeof(ShippedPages) % 64 == 0);
  static_assert(alignof(PageShipper) >= 64 && sizeof(PageShipper) % 64 == 0);
  // Also where they are allocated, one beside the other.
  std::vector<ShippedPages> counters(3);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(counters.data()) % 64, 0U);
  std::vector<std::unique_ptr<PageShipper>> shippers;
  const auto guest = *SyntheticGuest::Create({.regions = {{"ram", MiB(2)}}});
  LandedMap landed(guest->regions());
  TokenBucket rate{ByteCount(0)};
  Cancellation cancel;
  FakePageChannel channel;
  for (ShippedPages& each : counters) {
    shippers.push_back(std::make_unique<PageShipper>(*guest, channel, landed, rate, cancel, each));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(shippers.back().get()) % kPageBytes, 0U);
  }
}

TEST(Layout, slices_of_the_map_of_landed_pages_share_no_cache_line) {
  const auto guest = *SyntheticGuest::Create({.regions = {{"a", MiB(6)}, {"b", MiB(6)}}});
  const LandedMap landed(guest->regions());
  for (const Slice& slice : CutIntoSlices(guest->regions(), 8)) {
    EXPECT_EQ(slice.pages.count, 512U);
    const auto word = reinterpret_cast<uintptr_t>(landed.WordOf(slice.region, slice.pages.first));
    EXPECT_EQ(word % 64, 0U) << "region " << slice.region << ", page " << slice.pages.first;
  }
}

// What a channel has, on either side, that one thread uses all the time.
TEST(Layout, what_is_in_local_pages_shares_none_and_is_there_before_anybody_uses_it) {
  struct Object : InLocalPages {
    std::array<std::byte, 5000> bytes;
  };
  const auto one = std::make_unique<Object>();
  const auto other = std::make_unique<Object>();
  const LocalVector<uint32_t> array(3);
  std::vector<uint64_t> pages;
  for (const void* const begin :
       {static_cast<const void*>(one.get()), static_cast<const void*>(other.get()),
        static_cast<const void*>(array.data())}) {
    pages.push_back(reinterpret_cast<uintptr_t>(begin));
    EXPECT_EQ(pages.back() % kPageBytes, 0U);
  }
  pages.push_back(pages[0] + kPageBytes);  // the second page of an object, never written to
  std::vector<int> nodes(pages.size());
  if (KernelTellsNodes()) {
    NodesOfAddresses(0, pages, nodes);
    EXPECT_THAT(nodes, Each(testing::Ge(0)));
  }
  EXPECT_NE(pages[0] + kPageBytes, pages[1]);
}

TEST(Workers, run_on_the_cpus_of_their_layout) {
  const CpuSet allowed = AffinityOf(0);
  ASSERT_FALSE(allowed.empty());
  WorkerLayout layout;
  for (uint64_t i = 0; i < 2; ++i) {
    layout.slices.push_back({.region = 0, .pages = {i * 512, 512}});
    layout.shares.push_back(1);
    layout.cpus.push_back({allowed[i % allowed.size()]});
  }
  layout.steal = StealOrder(2);
  const std::vector<CpuSet> expected = layout.cpus;
  WorkerPool pool(std::move(layout));
  std::vector<CpuSet> seen(2);
  ASSERT_TRUE(pool.Run([&](uint32_t worker, size_t) {
                    seen[worker] = AffinityOf(0);
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(seen, expected);
  EXPECT_EQ(AffinityOf(0), allowed) << "only the workers are bound";
  EXPECT_TRUE(pool.binding().ok());
}

TEST(Workers, that_cannot_be_bound_work_all_the_same_and_it_is_told) {
  WorkerLayout layout{.slices = {{.region = 0, .pages = {0, 512}}},
                      .shares = {1},
                      .steal = StealOrder(1),
                      .cpus = {{kMaxCpus - 1}}};
  WorkerPool pool(std::move(layout));
  std::atomic<int> done{0};
  ASSERT_TRUE(pool.Run([&](uint32_t, size_t) {
                    ++done;
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(done.load(), 1);
  EXPECT_THAT(std::string(pool.binding().message()), HasSubstr("cannot bind a thread to CPU"));
}

// Places that a test makes up.
MemorySurvey Invented(const std::vector<MappedRegion>& regions,
                      const std::function<int(RegionId, uint64_t)>& node) {
  return MemorySurvey(regions,
                      [&](RegionId region, std::span<const uint64_t> pages, std::span<int> nodes) {
                        for (size_t i = 0; i < pages.size(); ++i) nodes[i] = node(region, pages[i]);
                      });
}

std::vector<MappedRegion> RegionsOf(const std::vector<uint64_t>& pages) {
  std::vector<MappedRegion> regions;
  for (const uint64_t count : pages) {
    regions.push_back({.description = {.name = "r", .size = ByteCount(count * kPageBytes)}});
  }
  return regions;
}

TEST(Survey, says_where_most_of_a_slice_is) {
  const MemorySurvey survey =
      Invented(RegionsOf({32768, 16384}), [](RegionId region, uint64_t page) {
        if (region == 1) return page < 8192 ? -1 : 3;
        return page < 20000 ? 0 : 1;
      });
  EXPECT_EQ(survey.PlaceOf({.region = 0, .pages = {0, 16384}}).node, 0);
  EXPECT_EQ(survey.PlaceOf({.region = 0, .pages = {0, 16384}}).bytes, MiB(64).value());
  EXPECT_EQ(survey.PlaceOf({.region = 0, .pages = {16384, 16384}}).node, 1);
  EXPECT_EQ(survey.PlaceOf({.region = 1, .pages = {0, 8192}}).node, -1);
  EXPECT_EQ(survey.PlaceOf({.region = 1, .pages = {0, 16384}}).node, 3);
  EXPECT_EQ(survey.PlaceOf({.region = 1, .pages = {0, 16384}}).bytes, MiB(32).value());
  EXPECT_THAT(survey.Nodes(), ElementsAre(0, 1, 3));
  EXPECT_EQ(survey.BytesByNode(1), (std::map<int, uint64_t>{{3, MiB(32).value()}}));
}

TEST(Survey, of_a_terabyte_looks_at_65536_pages_and_leaves_trifles_out) {
  const std::vector<MappedRegion> regions = RegionsOf({uint64_t{1} << 28});
  size_t looked = 0;
  const MemorySurvey survey = Invented(regions, [&](RegionId, uint64_t page) {
    ++looked;
    return page < (uint64_t{1} << 22) ? 1 : 0;  // 16 GiB of it
  });
  EXPECT_EQ(looked, 65536U);
  EXPECT_THAT(survey.Nodes(), ElementsAre(0));
  EXPECT_EQ(survey.PlaceOf({.region = 0, .pages = {0, 16384}}).node, 1);
}

// ---- with this machine's memory

TEST(NumaMemory, pages_that_are_there_have_a_node_and_holes_have_none_nor_get_one) {
  if (!KernelTellsNodes()) GTEST_SKIP() << "this kernel does not tell nodes (no CONFIG_NUMA)";
  const auto guest = *SyntheticGuest::Create({.regions = {{"ram", MiB(4)}}});
  std::memset(guest->memory()[0].address + MiB(1).value(), 7, KiB(64).value());
  const std::vector<uint64_t> pages = {0, 255, 256, 271, 272, 1023};
  std::vector<int> nodes(pages.size());
  guest->NodesOfPages(0, pages, nodes);
  EXPECT_THAT(nodes, ElementsAre(-1, -1, testing::Ge(0), testing::Ge(0), -1, -1));
  PageRuns runs;
  ASSERT_TRUE(guest->PopulatedRuns({.region = 0, .pages = {0, 1024}}, runs).ok());
  EXPECT_THAT(runs, ElementsAre(PageRun{256, 16}));
}

TEST(NumaMemory, local_pages_stay_where_they_are_whoever_uses_them) {
  if (!KernelTellsNodes()) GTEST_SKIP() << "this kernel has no memory policies (no CONFIG_NUMA)";
  const LocalVector<std::byte> local(3 * kPageBytes);
  const std::vector<std::byte> heap(kPageBytes);
  EXPECT_FALSE(HasPolicy(heap.data())) << "the kernel balances it";
  for (size_t page = 0; page < 3; ++page) EXPECT_TRUE(HasPolicy(local.data() + page * kPageBytes));
  EXPECT_EQ(PolicyNode(local.data()), std::nullopt) << "no node in particular";
}

TEST(NumaMemory, a_policy_on_one_mapping_of_a_file_holds_for_others_and_for_pwrite) {
  if (!KernelTellsNodes()) GTEST_SKIP() << "this kernel has no memory policies (no CONFIG_NUMA)";
  auto file = *MemoryFile::Create(MiB(4), "policy");
  void* const other =
      ::mmap(nullptr, MiB(4).value(), PROT_READ | PROT_WRITE, MAP_SHARED, file.fd(), 0);
  ASSERT_NE(other, MAP_FAILED);
  EXPECT_FALSE(HasPolicy(file.address()));
  ASSERT_TRUE(PreferNode(file.address(), MiB(4).value(), 0).ok());
  EXPECT_TRUE(HasPolicy(static_cast<std::byte*>(other))) << "what QEMU would see";
  EXPECT_EQ(PolicyNode(static_cast<std::byte*>(other)), 0);
  ASSERT_TRUE(PreferNoNode(file.address(), MiB(4).value()).ok());
  EXPECT_FALSE(HasPolicy(static_cast<std::byte*>(other)));
  ::munmap(other, MiB(4).value());
}

TEST(NumaMemory, a_node_that_is_not_there_is_an_error) {
  auto file = *MemoryFile::Create(MiB(4), "policy");
  EXPECT_THAT(std::string(PreferNode(file.address(), MiB(4).value(), 1000).message()),
              HasSubstr("node 1000"));
}

HostTopology TwoNodeHost() {
  auto host = *TopologyFromSynthetic("node:2 core:1 pu:1");
  for (HostNode& node : host.nodes) node.memory = node.available = GiB(64);
  return host;
}

Reserve ReservationOf(const GuestDescription& guest) {
  return {.guest = guest, .channels = 2, .transports = {"tcp"}, .channel_regions = {0, 1}};
}

TEST(NumaMemory, a_guest_is_bound_before_it_lands_and_unbound_when_it_is_given_up) {
  if (!KernelTellsNodes()) GTEST_SKIP() << "this kernel has no memory policies (no CONFIG_NUMA)";
  // Both guest nodes go to node 0: the one that every machine has.
  const GuestDescription description{
      .name = "web1", .regions = {{"ram0", MiB(4), KiB(4), 0}, {"ram1", MiB(4), KiB(4), 1}}};
  const auto guest = *SyntheticDestination::Create(description);
  const auto landing =
      PlaceLanding(TwoNodeHost(), {.map = {{0, 0}, {1, 0}}}, ReservationOf(description), *guest);
  ASSERT_TRUE(landing.ok()) << landing.status();
  for (const MemoryFile& file : guest->files()) {
    EXPECT_EQ(*file.Populated(), ByteCount(0)) << "binding touches nothing";
  }
  for (const MappedRegion& region : guest->regions()) {
    EXPECT_EQ(PolicyNode(region.address), 0);
    std::memset(region.address, 1, MiB(1).value());
  }
  ASSERT_EQ(landing->channels.size(), 2U);
  EXPECT_THAT(landing->channels[0].cpus, ElementsAre(0));
  EXPECT_THAT(
      landing->Check(*guest),
      ElementsAre(testing::StartsWith("memory ram0 (guest node 0): 1 MiB on node 0, as planned"),
                  testing::StartsWith("memory ram1 (guest node 1): 1 MiB on node 0, as planned")));
  landing->Unbind(*guest);
  for (const MappedRegion& region : guest->regions()) EXPECT_FALSE(HasPolicy(region.address));
}

TEST(NumaMemory, what_did_not_come_to_its_node_is_told) {
  if (!KernelTellsNodes()) GTEST_SKIP() << "this kernel does not tell nodes (no CONFIG_NUMA)";
  const GuestDescription description{.name = "web1", .regions = {{"ram0", MiB(4), KiB(4), 0}}};
  const auto guest = *SyntheticDestination::Create(description);
  std::memset(guest->regions()[0].address, 1, MiB(1).value());
  GuestLanding landing;
  landing.plan.regions = {{.node = 1, .bind = true, .why = "a plan"}};
  EXPECT_THAT(landing.Check(*guest), ElementsAre(HasSubstr("NOT AS PLANNED: 1 MiB on node 0")));
}

TEST(NumaMemory, a_host_with_one_node_is_not_touched) {
  const GuestDescription description{.name = "web1", .regions = {{"ram0", MiB(4), KiB(4), 0}}};
  const auto guest = *SyntheticDestination::Create(description);
  const auto landing = PlaceLanding(*TopologyFromSynthetic("node:1 core:2 pu:1"), {},
                                    ReservationOf(description), *guest);
  ASSERT_TRUE(landing.ok());
  EXPECT_FALSE(HasPolicy(guest->regions()[0].address));
  EXPECT_THAT(landing->plan.notes, IsEmpty());
  EXPECT_THAT(landing->Check(*guest), IsEmpty());
  for (const ChannelPlace& place : landing->channels) EXPECT_THAT(place.cpus, IsEmpty());
}

std::unique_ptr<SyntheticGuest> TwoRegions() {
  return *SyntheticGuest::Create({.regions = {{"ram0", MiB(32)}, {"ram1", MiB(32)}}});
}

TEST(SourcePlacement, one_node_measures_nothing_and_binds_nobody) {
  const auto guest = TwoRegions();
  const HostTopology host = *TopologyFromSynthetic("node:1 core:8 pu:1");
  const SourcePlacement placement(*guest, host, {});
  EXPECT_EQ(placement.workers(), 4U);
  EXPECT_FALSE(placement.survey());
  EXPECT_FALSE(placement.plan().places_anything);
  for (const ChannelPlace& place : placement.places()) EXPECT_THAT(place.cpus, IsEmpty());
  // The same slices for the same workers as ever.
  const WorkerLayout layout = placement.Layout();
  EXPECT_EQ(layout.slices, CutIntoSlices(guest->regions(), 4));
  EXPECT_THAT(layout.shares, Each(layout.slices.size() / 4));
  EXPECT_THAT(layout.cpus, Each(IsEmpty()));
}

TEST(SourcePlacement, every_slice_is_in_the_layout_once_and_channels_name_their_regions) {
  const auto guest = TwoRegions();
  for (const MappedRegion& region : guest->memory()) {
    std::memset(region.address, 1, MiB(32).value());
  }
  const HostTopology host = TwoNodeHost();
  const SourcePlacement placement(*guest, host, {.workers = 2});
  std::vector<Slice> slices = placement.Layout().slices;
  std::sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) {
    return std::tuple(a.region, a.pages.first) < std::tuple(b.region, b.pages.first);
  });
  EXPECT_EQ(slices, CutIntoSlices(guest->regions(), 2));
  EXPECT_THAT(placement.ChannelRegions(), ElementsAre(0, 1));
  if (KernelTellsNodes()) {
    EXPECT_THAT(placement.survey()->Nodes(), testing::Not(IsEmpty()));
  }
}

}  // namespace
}  // namespace ramferry
