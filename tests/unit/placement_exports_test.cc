// Machines that hwloc exported as XML (lstopo FILE.xml): each gives a plan that keeps the rules.
// Those of topologies/, and those of the directory that RAMFERRY_TOPOLOGIES names.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "engine/placement/host_topology.h"
#include "engine/placement/landing_plan.h"
#include "engine/placement/worker_plan.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/placement_in_words.h"

namespace ramferry {
namespace {

using ::testing::ElementsAre;

std::vector<std::filesystem::path> Exports() {
  std::vector<std::filesystem::path> files;
  const char* const more = std::getenv("RAMFERRY_TOPOLOGIES");
  for (const char* directory : {RAMFERRY_TOPOLOGIES, more}) {
    if (directory == nullptr) continue;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      if (entry.path().extension() == ".xml") files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Slices on every node that has memory.
std::vector<SlicePlace> SlicesEverywhere(const HostTopology& host) {
  std::vector<SlicePlace> slices;
  for (const HostNode& node : host.nodes) {
    for (int i = 0; i < 4; ++i) slices.push_back({.bytes = MiB(64).value(), .node = node.id});
  }
  return slices;
}

size_t AllowedCpus(const HostTopology& host) {
  return static_cast<size_t>(std::count_if(host.cpus.begin(), host.cpus.end(),
                                           [](const HostCpu& cpu) { return cpu.allowed; }));
}

// No CPU that nobody has is nearer to a worker's home than its own; none has two before all have
// one; every slice is with one worker.
void ExpectRulesKept(const HostTopology& host, const WorkerPlan& plan, size_t slices) {
  std::multiset<int> taken;
  std::set<size_t> seen;
  for (const WorkerPlace& worker : plan.workers) {
    for (const size_t slice : worker.slices) EXPECT_TRUE(seen.insert(slice).second);
    if (host.one_node()) continue;
    ASSERT_EQ(worker.cpus.size(), 1U);
    taken.insert(worker.cpus[0]);
    const HostCpu* const cpu = host.FindCpu(worker.cpus[0]);
    ASSERT_NE(cpu, nullptr);
    EXPECT_TRUE(cpu->allowed);
    EXPECT_LE(taken.count(cpu->id), 1 + (plan.workers.size() - 1) / AllowedCpus(host));
    EXPECT_FALSE(worker.why.empty());
  }
  EXPECT_EQ(seen.size(), slices);
  for (const WorkerPlace& worker : plan.workers) {
    for (const HostCpu& cpu : host.cpus) {
      if (host.one_node() || !cpu.allowed || taken.contains(cpu.id)) continue;
      EXPECT_GE(host.CpuDistance(cpu, worker.home),
                host.CpuDistance(*host.FindCpu(worker.cpus[0]), worker.home));
    }
  }
}

TEST(Exports, every_machine_gives_plans_that_keep_the_rules) {
  for (const auto& file : Exports()) {
    SCOPED_TRACE(file);
    const auto host = TopologyFromXml(file);
    ASSERT_TRUE(host.ok()) << host.status();
    ASSERT_FALSE(host->nodes.empty());
    ASSERT_FALSE(host->cpus.empty());
    const std::vector<SlicePlace> slices = SlicesEverywhere(*host);
    std::vector<std::string> nics;
    for (const HostNic& nic : host->nics) nics.push_back(nic.name);
    for (const uint32_t workers : {1U, 2U, 3U, 8U, 64U}) {
      ExpectRulesKept(*host,
                      PlanWorkers({.host = *host,
                                   .slices = slices,
                                   .usable = FindUsableCpus(*host, {}, {}),
                                   .nics = nics,
                                   .workers = workers}),
                      slices.size());
    }
    const std::vector<LandingRegion> regions = {
        {.guest_node = 0, .size = 1 << 20, .populated = 1 << 20},
        {.guest_node = 1, .size = 1 << 20, .populated = 1 << 20}};
    const LandingPlan landing = PlanLanding({.host = *host,
                                             .regions = regions,
                                             .usable = FindUsableCpus(*host, {}, {}),
                                             .channels = 4});
    EXPECT_TRUE(landing.refusals.empty());
    for (const RegionLanding& region : landing.regions) {
      EXPECT_EQ(region.node < 0, host->one_node());
    }
  }
}

// ---- Emulated hosts of the lab, as their kernels showed them to hwloc (docs/numa.md).

HostTopology Export(const std::string& name) {
  const auto host = TopologyFromXml(std::string(RAMFERRY_TOPOLOGIES) + "/" + name + ".xml");
  EXPECT_TRUE(host.ok()) << host.status();
  return host.ok() ? *host : HostTopology{};
}

TEST(Exports, devices_serve_the_node_that_they_hang_on) {
  EXPECT_THAT(Workers(Export("two_nodes_four_nics"), {0, 1}, 2),
              ElementsAre("CPU 0 of node 0, device of node 0",  //
                          "CPU 2 of node 1, device of node 1"));
  EXPECT_THAT(
      Workers(Export("four_nodes_four_nics"), {0, 1, 2, 3}, 4),
      ElementsAre("CPU 0 of node 0, device of node 0", "CPU 1 of node 1, device of node 1",
                  "CPU 2 of node 2, device of node 2", "CPU 3 of node 3, device of node 3"));
}

// Two sockets of two nodes; a node has two cores of two threads: CPUs 4-5 and 6-7 are node 1's.
TEST(Exports, sub_numa_clusters_cores_before_siblings_before_the_sockets_other_cluster) {
  const HostTopology host = Export("sub_numa_clusters");
  EXPECT_THAT(
      Workers(host, {1}, 6),
      ElementsAre("CPU 4 of node 1, device of node 1", "CPU 6 of node 1, device of node 1",
                  "CPU 5 of node 1, device of node 1", "CPU 7 of node 1, device of node 1",
                  "CPU 0 of node 0, device of node 1", "CPU 2 of node 0, device of node 1"));
  // The one device is on node 1; memory wins.
  EXPECT_THAT(Workers(host, {0, 2}, 2), ElementsAre("CPU 0 of node 0, device of node 1",
                                                    "CPU 8 of node 2, device of node 1"));
  EXPECT_THAT(LandingNodes(host, 2), ElementsAre(0, 1)) << "both on one socket";
}

// Two sockets of four nodes with a CPU each, in a ring. From the second socket it is farther to the
// first (32) than back (24).
TEST(Exports, eight_nodes_whose_distances_are_not_symmetric) {
  const HostTopology host = Export("eight_nodes");
  ASSERT_EQ(host.nodes.size(), 8U);
  EXPECT_EQ(host.Distance(0, 4), 24U);
  EXPECT_EQ(host.Distance(4, 0), 32U);
  EXPECT_THAT(
      Workers(host, {0, 1, 2, 3, 4, 5, 6, 7}, 8),
      ElementsAre("CPU 0 of node 0, device of node 5", "CPU 1 of node 1, device of node 5",
                  "CPU 2 of node 2, device of node 5", "CPU 3 of node 3, device of node 5",
                  "CPU 4 of node 4, device of node 5", "CPU 5 of node 5, device of node 5",
                  "CPU 6 of node 6, device of node 5", "CPU 7 of node 7, device of node 5"));
  // Beside, its neighbours in the ring (of two that are as near the one nearer to the device), the
  // one across, and only then the other socket.
  EXPECT_THAT(Workers(host, {0}, 5),
              ElementsAre("CPU 0 of node 0, device of node 5", "CPU 1 of node 1, device of node 5",
                          "CPU 3 of node 3, device of node 5", "CPU 2 of node 2, device of node 5",
                          "CPU 4 of node 4, device of node 5"));
  EXPECT_THAT(Workers(host, {0, 1, 2, 3, 4, 5, 6, 7}, 2),
              ElementsAre("CPU 0 of node 0, device of node 5",  //
                          "CPU 4 of node 4, device of node 5"))
      << "a worker a socket";
  EXPECT_THAT(LandingNodes(host, 4), ElementsAre(0, 1, 2, 3)) << "within a socket";
}

// Node 0 has CPUs 0-3, node 1 CPUs 4-5, node 2 none; it is nearer to node 1, where the device is.
TEST(Exports, memory_alone_is_read_from_the_nearer_node_and_taken_last) {
  const HostTopology host = Export("uneven_with_memory_alone");
  EXPECT_THAT(Workers(host, {2}, 3),
              ElementsAre("CPU 4 of node 1, device of node 1", "CPU 5 of node 1, device of node 1",
                          "CPU 0 of node 0, device of node 1"));
  EXPECT_THAT(Workers(host, {0, 1}, 2), ElementsAre("CPU 0 of node 0, device of node 1",
                                                    "CPU 4 of node 1, device of node 1"));
  EXPECT_THAT(LandingNodes(host, 3), ElementsAre(0, 1, 0));
}

// Four nodes of a core with two threads. What exported it might use CPUs 4 and 5, of node 2, and
// the memory of nodes 2 and 3.
TEST(Exports, a_cpuset_of_one_core_holds_workers_and_memory) {
  const HostTopology host = Export("cpuset_of_one_core");
  EXPECT_THAT(
      Workers(host, {0, 1, 2, 3}, 4),
      ElementsAre("CPU 4 of node 2, device of node 3", "CPU 5 of node 2, device of node 3",
                  "CPU 4 of node 2, device of node 3", "CPU 5 of node 2, device of node 3"));
  EXPECT_EQ(WorkerCount(host, FindUsableCpus(host, {}, {}), std::vector<int>{0, 1, 2, 3}, 0), 1U);
  EXPECT_THAT(LandingNodes(host, 2), ElementsAre(2, 3));
  EXPECT_THAT(Landing(host, 1, {{0, 1}}).refusals,
              ElementsAre(::testing::HasSubstr("cpuset.mems")));
}

}  // namespace
}  // namespace ramferry
