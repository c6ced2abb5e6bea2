// Which CPUs workers may take, how many workers there are, and where each of them goes: on machines
// in hwloc's synthetic notation, and with devices and distances written down.
#include <sstream>
#include <string>
#include <vector>

#include "engine/placement/host_topology.h"
#include "engine/placement/usable_cpus.h"
#include "engine/placement/worker_plan.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ramferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

HostTopology Machine(const std::string& synthetic) {
  auto host = TopologyFromSynthetic(synthetic);
  EXPECT_TRUE(host.ok()) << host.status();
  return host.ok() ? *host : HostTopology{};
}

// So many slices of 64 MiB on each of these nodes, in a row.
std::vector<SlicePlace> SlicesOn(const std::vector<int>& nodes, size_t each = 8) {
  std::vector<SlicePlace> slices;
  for (const int node : nodes) {
    for (size_t i = 0; i < each; ++i) slices.push_back({.bytes = MiB(64).value(), .node = node});
  }
  return slices;
}

WorkerPlan Plan(const HostTopology& host, const std::vector<SlicePlace>& slices, uint32_t workers,
                const std::vector<VcpuPlace>& vcpus = {}, const CpuSet& wanted = {}) {
  std::vector<std::string> nics;
  for (const HostNic& nic : host.nics) nics.push_back(nic.name);
  return PlanWorkers({.host = host,
                      .slices = slices,
                      .usable = FindUsableCpus(host, vcpus, wanted),
                      .nics = nics,
                      .workers = workers});
}

// "home node/CPUs/device" of each worker.
std::vector<std::string> Places(const WorkerPlan& plan) {
  std::vector<std::string> places;
  for (const WorkerPlace& worker : plan.workers) {
    places.push_back(fmt::format("{}/{}{}{}", worker.home, FormatCpuSet(worker.cpus),
                                 worker.nic.empty() ? "" : "/", worker.nic));
  }
  return places;
}

// Every slice is in exactly one worker's share.
void ExpectAllSlicesOnce(const WorkerPlan& plan, size_t slices) {
  std::vector<int> seen(slices);
  for (const WorkerPlace& worker : plan.workers) {
    for (const size_t slice : worker.slices) ++seen.at(slice);
  }
  EXPECT_THAT(seen, ::testing::Each(1));
}

TEST(Placement, hwloc_gives_nodes_cores_and_siblings) {
  const HostTopology host = Machine("node:2 core:2 pu:2");
  ASSERT_EQ(host.nodes.size(), 2U);
  ASSERT_EQ(host.cpus.size(), 8U);
  EXPECT_EQ(host.cpus[5].node, 1);
  EXPECT_EQ(host.cpus[5].sibling, 1);
  EXPECT_EQ(host.cpus[4].core, host.cpus[5].core);
  EXPECT_NE(host.cpus[3].core, host.cpus[4].core);
  EXPECT_EQ(host.Distance(0, 0), 10U);
  EXPECT_GT(host.Distance(0, 1), 10U);
}

TEST(Placement, one_node_binds_nothing_and_says_nothing) {
  const HostTopology host = Machine("node:1 core:8 pu:2");
  const WorkerPlan plan = Plan(host, SlicesOn({0}), 4);
  EXPECT_FALSE(plan.places_anything);
  EXPECT_THAT(Places(plan), ElementsAre("0/", "0/", "0/", "0/"));
  EXPECT_THAT(plan.notes, IsEmpty());
  ExpectAllSlicesOnce(plan, 8);
}

TEST(Placement, one_node_keeps_off_cores_of_pinned_vcpus_all_the_same) {
  const HostTopology host = Machine("node:1 core:4 pu:2");  // cores 0-1 2-3 4-5 6-7
  const WorkerPlan plan = Plan(host, SlicesOn({0}), 2, {{.cpus = {0}}, {.cpus = {3}}});
  EXPECT_TRUE(plan.places_anything);
  EXPECT_THAT(Places(plan), ElementsAre("0/4-7", "0/4-7"));
}

TEST(Placement, two_nodes_each_worker_beside_its_memory) {
  const HostTopology host = Machine("node:2 core:4 pu:1");
  const auto slices = SlicesOn({0, 1});
  const WorkerPlan plan = Plan(host, slices, 4);
  EXPECT_THAT(Places(plan), ElementsAre("0/0", "0/1", "1/4", "1/5"));
  ExpectAllSlicesOnce(plan, slices.size());
  for (const WorkerPlace& worker : plan.workers) {
    EXPECT_EQ(worker.slices.size(), 4U);
    for (const size_t slice : worker.slices) EXPECT_EQ(slices[slice].node, worker.home);
  }
}

TEST(Placement, memory_on_one_node_keeps_all_workers_there_while_it_has_cpus) {
  const HostTopology host = Machine("node:2 core:2 pu:1");
  EXPECT_THAT(Places(Plan(host, SlicesOn({1}), 2)), ElementsAre("1/2", "1/3"));
  const WorkerPlan third = Plan(host, SlicesOn({1}), 3);
  EXPECT_THAT(Places(third), ElementsAre("1/2", "1/3", "1/0"));
  EXPECT_THAT(third.workers[2].why, HasSubstr("no CPU of node 1 is free: distance 20"));
}

TEST(Placement, uneven_memory_gets_uneven_workers) {
  const HostTopology host = Machine("node:2 core:4 pu:1");
  auto slices = SlicesOn({0}, 24);
  for (const SlicePlace& slice : SlicesOn({1}, 8)) slices.push_back(slice);
  EXPECT_THAT(Places(Plan(host, slices, 4)), ElementsAre("0/0", "0/1", "0/2", "1/4"));
}

TEST(Placement, a_trifle_on_another_node_gets_no_worker_of_its_own) {
  const HostTopology host = Machine("node:2 core:4 pu:1");
  auto slices = SlicesOn({0}, 60);
  slices.push_back({.bytes = MiB(64).value(), .node = 1});
  const WorkerPlan plan = Plan(host, slices, 2);
  EXPECT_THAT(Places(plan), ElementsAre("0/0", "0/1"));
  ExpectAllSlicesOnce(plan, slices.size());
}

TEST(Placement, one_worker_for_two_nodes_is_at_the_larger_part) {
  const HostTopology host = Machine("node:2 core:2 pu:1");
  auto slices = SlicesOn({0}, 4);
  for (const SlicePlace& slice : SlicesOn({1}, 8)) slices.push_back(slice);
  const WorkerPlan plan = Plan(host, slices, 1);
  EXPECT_THAT(Places(plan), ElementsAre("1/2"));
  ExpectAllSlicesOnce(plan, slices.size());
}

TEST(Placement, siblings_come_last_but_before_a_foreign_node) {
  const HostTopology host = Machine("node:2 core:2 pu:2");  // node 0: cores 0-1 2-3
  EXPECT_THAT(Places(Plan(host, SlicesOn({0}), 5)), ElementsAre("0/0", "0/2", "0/1", "0/3", "0/4"));
}

TEST(Placement, four_nodes_with_two_near_pairs_send_the_surplus_to_the_near_one) {
  HostTopology host = Machine("node:4 core:1 pu:1");
  host.distances = {{10, 32, 12, 32}, {32, 10, 32, 12}, {12, 32, 10, 32}, {32, 12, 32, 10}};
  EXPECT_THAT(Places(Plan(host, SlicesOn({1}), 3)), ElementsAre("1/1", "1/3", "1/0"));
}

TEST(Placement, eight_nodes_one_worker_each_and_slices_of_more_nodes_than_workers_go_near) {
  HostTopology host = Machine("node:8 core:4 pu:1");
  EXPECT_THAT(Places(Plan(host, SlicesOn({0, 1, 2, 3, 4, 5, 6, 7}), 8)),
              ElementsAre("0/0", "1/4", "2/8", "3/12", "4/16", "5/20", "6/24", "7/28"));
  // Two sockets of four nodes: 12 within a socket, 32 across.
  host.distances.assign(8, std::vector<uint64_t>(8));
  for (size_t a = 0; a < 8; ++a) {
    for (size_t b = 0; b < 8; ++b) {
      host.distances[a][b] = a == b ? 10 : a / 4 == b / 4 ? 12 : 32;
    }
  }
  std::vector<SlicePlace> slices = SlicesOn({0, 4}, 16);
  for (const SlicePlace& slice : SlicesOn({1, 2, 3, 5, 6, 7}, 8)) slices.push_back(slice);
  const WorkerPlan plan = Plan(host, slices, 2);
  EXPECT_THAT(Places(plan), ElementsAre("0/0", "4/16"));
  for (const WorkerPlace& worker : plan.workers) {
    for (const size_t slice : worker.slices) {
      EXPECT_EQ(slices[slice].node / 4, worker.home / 4) << "a slice on the other socket";
    }
  }
}

TEST(Placement, fewer_workers_than_nodes_are_spread_over_the_sockets) {
  HostTopology host = Machine("node:8 core:4 pu:1");
  host.distances.assign(8, std::vector<uint64_t>(8));
  for (size_t a = 0; a < 8; ++a) {
    for (size_t b = 0; b < 8; ++b) {
      host.distances[a][b] = a == b ? 10 : a / 4 == b / 4 ? 12 : 32;
    }
  }
  const std::vector<SlicePlace> slices = SlicesOn({0, 1, 2, 3, 4, 5, 6, 7});
  EXPECT_THAT(Places(Plan(host, slices, 2)), ElementsAre("0/0", "4/16"));
  const WorkerPlan plan = Plan(host, slices, 4);
  EXPECT_THAT(Places(plan), ElementsAre("0/0", "1/4", "4/16", "5/20"));
  for (const WorkerPlace& worker : plan.workers) {
    EXPECT_EQ(worker.slices.size(), 16U);
    for (const size_t slice : worker.slices) EXPECT_EQ(slices[slice].node / 4, worker.home / 4);
  }
}

TEST(Placement, sub_numa_clusters_are_nodes_like_others) {
  HostTopology host = Machine("pack:2 node:2 core:4 pu:2");
  host.distances = {{10, 11, 21, 21}, {11, 10, 21, 21}, {21, 21, 10, 11}, {21, 21, 11, 10}};
  EXPECT_THAT(Places(Plan(host, SlicesOn({1}), 6)),
              ElementsAre("1/8", "1/10", "1/12", "1/14", "1/9", "1/11"));
  // All 8 CPUs of node 1 are taken: next its socket's other cluster.
  EXPECT_EQ(Plan(host, SlicesOn({1}), 9).workers.back().node, 0);
}

TEST(Placement, memory_without_cpus_is_read_from_the_nearest_node_that_has_some) {
  HostTopology host = Machine("node:2 core:4 pu:1");
  host.nodes.push_back({.id = 2, .memory = GiB(64), .available = GiB(64)});  // CXL, at node 1
  host.distances = {{10, 21, 24}, {21, 10, 14}, {24, 14, 10}};
  const WorkerPlan plan = Plan(host, SlicesOn({2}), 2);
  EXPECT_THAT(Places(plan), ElementsAre("2/4", "2/5"));
  EXPECT_THAT(plan.workers[0].why, HasSubstr("distance 14"));
}

TEST(Placement, a_cpu_of_no_node_is_farther_than_all_others) {
  HostTopology host = Machine("node:2 core:2 pu:1");
  host.cpus[0].node = host.cpus[1].node = -1;
  EXPECT_THAT(Places(Plan(host, SlicesOn({0, 1}), 2)), ElementsAre("0/2", "1/3"));
  const WorkerPlan third = Plan(host, SlicesOn({1}), 3);
  EXPECT_THAT(Places(third), ElementsAre("1/2", "1/3", "1/0"));
  EXPECT_THAT(third.workers[2].why, HasSubstr("no CPU of any node is free"));
}

TEST(Placement, where_distances_are_not_symmetric_that_from_cpu_to_memory_counts) {
  // Node 2 is memory alone. From node 0 it is near, and back it would be far; from node 1 not.
  HostTopology host = Machine("node:2 core:2 pu:1");
  host.nodes.push_back({.id = 2, .memory = GiB(64), .available = GiB(64)});
  host.distances = {{10, 21, 14}, {21, 10, 28}, {40, 12, 10}};
  EXPECT_THAT(Places(Plan(host, SlicesOn({2}), 2)), ElementsAre("2/0", "2/1"));
  EXPECT_THAT(Plan(host, SlicesOn({2}), 1).workers[0].why, HasSubstr("distance 14"));
  EXPECT_EQ(WorkerCount(host, FindUsableCpus(host, {}, {}), std::vector<int>{2}, 0), 1U);
  // And who has to share a worker shares one that reads its memory sooner.
  host.distances = {{10, 21, 30}, {21, 10, 14}, {12, 40, 10}};
  std::vector<SlicePlace> slices = SlicesOn({0, 1}, 8);
  for (const SlicePlace& slice : SlicesOn({2}, 4)) slices.push_back(slice);
  const WorkerPlan plan = Plan(host, slices, 2);
  EXPECT_THAT(Places(plan), ElementsAre("0/0", "1/2"));
  EXPECT_EQ(plan.workers[1].slices.size(), 12U);
}

TEST(Placement, nic_on_node_1_only_memory_wins) {
  HostTopology host = Machine("node:2 core:4 pu:1");
  host.nics = {{.name = "mlx5_0", .node = 1, .rdma = true}};
  const WorkerPlan plan = Plan(host, SlicesOn({0, 1}), 2);
  EXPECT_THAT(Places(plan), ElementsAre("0/0/mlx5_0", "1/4/mlx5_0"));
  EXPECT_THAT(plan.workers[0].why, HasSubstr("its device is at distance 20: memory wins"));
  EXPECT_THAT(plan.workers[1].why, HasSubstr("its device too"));
}

TEST(Placement, of_equally_near_cpus_the_one_near_the_device) {
  // The memory has no CPUs and is as near to node 0 as to node 1, where the device is.
  HostTopology host = Machine("node:2 core:4 pu:1");
  host.nodes.push_back({.id = 2, .memory = GiB(64), .available = GiB(64)});
  host.distances = {{10, 21, 17}, {21, 10, 17}, {17, 17, 10}};
  host.nics = {{.name = "eth0", .node = 1}};
  EXPECT_THAT(Places(Plan(host, SlicesOn({2}), 1)), ElementsAre("2/4/eth0"));
}

TEST(Placement, a_nic_per_node_serves_its_node_and_equal_ones_are_shared_out) {
  HostTopology host = Machine("node:2 core:4 pu:1");
  host.nics = {{.name = "mlx5_0", .node = 0, .rdma = true},
               {.name = "mlx5_1", .node = 1, .rdma = true}};
  EXPECT_THAT(Places(Plan(host, SlicesOn({0, 1}), 4)),
              ElementsAre("0/0/mlx5_0", "0/1/mlx5_0", "1/4/mlx5_1", "1/5/mlx5_1"));
  EXPECT_THAT(Places(Plan(host, SlicesOn({0}), 2)), ElementsAre("0/0/mlx5_0", "0/1/mlx5_1"))
      << "no device is idle because the memory is elsewhere";
  host.nics[1].node = 0;
  EXPECT_THAT(Places(Plan(host, SlicesOn({0}), 2)), ElementsAre("0/0/mlx5_0", "0/1/mlx5_1"));
}

TEST(Placement, vcpus_that_float_over_a_node_do_not_take_its_cores) {
  const HostTopology host = Machine("node:2 core:4 pu:1");
  // Two vCPUs somewhere on node 0's four CPUs leave room; four of them do not.
  const VcpuPlace floating{.cpus = {0, 1, 2, 3}};
  EXPECT_THAT(PinnedToVcpus(host, std::vector<VcpuPlace>(2, floating)), IsEmpty());
  EXPECT_THAT(PinnedToVcpus(host, std::vector<VcpuPlace>(4, floating)), ElementsAre(0, 1, 2, 3));
  // vCPUs that may run anywhere are pinned to nothing, however many they are.
  const VcpuPlace free{.cpus = {0, 1, 2, 3, 4, 5, 6, 7}};
  EXPECT_THAT(PinnedToVcpus(host, std::vector<VcpuPlace>(16, free)), IsEmpty());
}

TEST(Placement, workers_leave_the_home_node_to_pinned_vcpus_if_they_fill_it) {
  const HostTopology host = Machine("node:2 core:2 pu:2");
  const std::vector<VcpuPlace> vcpus = {{.cpus = {0}}, {.cpus = {2}}};  // a thread of each core
  EXPECT_THAT(Places(Plan(host, SlicesOn({0}), 2, vcpus)), ElementsAre("0/4", "0/6"));
}

TEST(Placement, where_every_core_has_vcpus_they_are_shared_and_that_is_said) {
  const HostTopology host = Machine("node:2 core:1 pu:2");
  const std::vector<VcpuPlace> vcpus = {{.cpus = {0}}, {.cpus = {2}}};
  const WorkerPlan plan = Plan(host, SlicesOn({0, 1}), 2, vcpus);
  EXPECT_THAT(Places(plan), ElementsAre("0/1", "1/3"));  // siblings rather than the vCPUs' own
  EXPECT_THAT(plan.notes, ElementsAre(HasSubstr("every core that may be used has vCPUs")));
}

TEST(Placement, a_cpuset_of_one_core_holds_all_workers) {
  HostTopology host = Machine("node:4 core:4 pu:2");
  for (HostCpu& cpu : host.cpus) cpu.allowed = cpu.id == 10 || cpu.id == 11;
  const UsableCpus usable = FindUsableCpus(host, {}, {});
  EXPECT_EQ(WorkerCount(host, usable, std::vector<int>{0, 1, 2, 3}, 0), 1U);
  const WorkerPlan plan = Plan(host, SlicesOn({0, 1, 2, 3}), 4);
  EXPECT_THAT(Places(plan), ElementsAre("0/10", "1/11", "2/10", "3/11"));
}

TEST(Placement, isolated_cpus_are_left_alone_unless_asked_for) {
  HostTopology host = Machine("node:2 core:4 pu:1");
  host.isolated = {0, 1, 4};
  EXPECT_THAT(Places(Plan(host, SlicesOn({0, 1}), 2)), ElementsAre("0/2", "1/5"));
  EXPECT_THAT(Places(Plan(host, SlicesOn({0, 1}), 2, {}, {0, 4})), ElementsAre("0/0", "1/4"));
}

TEST(Placement, cpus_that_were_asked_for_bound_the_workers) {
  const HostTopology host = Machine("node:2 core:4 pu:1");
  const WorkerPlan plan = Plan(host, SlicesOn({0, 1}), 3, {}, {6, 7});
  EXPECT_THAT(Places(plan), ElementsAre("0/6", "0/7", "1/6"));
  EXPECT_THAT(plan.notes, ElementsAre("3 workers share 2 CPUs"));
}

TEST(Placement, cpus_that_may_not_be_used_are_refused_by_name) {
  HostTopology host = Machine("node:1 core:4 pu:1");
  host.cpus[2].allowed = false;
  EXPECT_TRUE(CheckWantedCpus(host, {0, 1}).ok());
  EXPECT_THAT(std::string(CheckWantedCpus(host, {1, 2}).message()), HasSubstr("CPU 2"));
  EXPECT_THAT(std::string(CheckWantedCpus(host, {1, 9}).message()), HasSubstr("not online"));
}

TEST(Placement, so_many_workers_by_default) {
  const auto count = [](const std::string& machine, const std::vector<int>& memory,
                        uint32_t asked) {
    const HostTopology host = Machine(machine);
    return WorkerCount(host, FindUsableCpus(host, {}, {}), memory, asked);
  };
  EXPECT_EQ(count("node:1 core:1 pu:1", {0}, 0), 1U);
  EXPECT_EQ(count("node:1 core:6 pu:1", {0}, 0), 3U);
  EXPECT_EQ(count("node:1 core:64 pu:2", {0}, 0), 8U);
  EXPECT_EQ(count("node:2 core:4 pu:1", {0, 1}, 0), 4U);
  EXPECT_EQ(count("node:2 core:4 pu:1", {1}, 0), 2U) << "half of the CPUs beside its memory";
  EXPECT_EQ(count("node:8 core:16 pu:1", {0, 1, 2, 3, 4, 5, 6, 7}, 0), 16U);
  EXPECT_EQ(count("node:2 core:4 pu:1", {0}, 7), 7U);
}

TEST(Placement, holes_are_shared_out_and_nothing_known_is_no_harm) {
  const HostTopology host = Machine("node:2 core:4 pu:1");
  std::vector<SlicePlace> slices(16, {.bytes = 0, .node = -1});
  const WorkerPlan empty = Plan(host, slices, 4);
  ExpectAllSlicesOnce(empty, slices.size());
  for (const WorkerPlace& worker : empty.workers) EXPECT_EQ(worker.slices.size(), 4U);
  for (const SlicePlace& slice : SlicesOn({1}, 4)) slices.push_back(slice);
  ExpectAllSlicesOnce(Plan(host, slices, 4), slices.size());
}

TEST(Placement, what_the_kernel_keeps_of_a_node_is_told_zone_by_zone) {
  const std::string text =
      "Node 0, zone      DMA\n  per-node stats\n      nr_inactive_anon 7\n  pages free     3840\n"
      "        boost    0\n        min      67\n        low      83\n        high     99\n"
      "Node 0, zone   Normal\n  pages free     100\n        low      1000\n    pagesets\n"
      "              high:  378\nNode 1, zone   Normal\n        low      256\n";
  std::istringstream first(text);
  EXPECT_EQ(ReserveOf(first, 0), ByteCount(1083 * kPageBytes));
  std::istringstream second(text);
  EXPECT_EQ(ReserveOf(second, 1), MiB(1));
  std::istringstream nothing;
  EXPECT_EQ(ReserveOf(nothing, 0), ByteCount(0));
}

TEST(CpuSets, are_written_and_read_as_the_kernel_does) {
  EXPECT_EQ(*ParseCpuSet("0-3,8\n"), (CpuSet{0, 1, 2, 3, 8}));
  EXPECT_EQ(*ParseCpuSet(""), CpuSet{});
  EXPECT_EQ(FormatCpuSet({0, 1, 2, 3, 8, 10, 11}), "0-3,8,10-11");
  for (const char* wrong : {"a", "3-1", "1,", ",1", "1-", "-1", "1;2", "99999999"}) {
    EXPECT_FALSE(ParseCpuSet(wrong).ok()) << wrong;
  }
}

}  // namespace
}  // namespace ramferry
