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
    EXPECT_LE(taken.count(worker.cpus[0]), 1 + (plan.workers.size() - 1) / host.cpus.size());
    EXPECT_FALSE(worker.why.empty());
  }
  EXPECT_EQ(seen.size(), slices);
  for (const WorkerPlace& worker : plan.workers) {
    for (const HostCpu& cpu : host.cpus) {
      if (host.one_node() || !cpu.allowed || taken.contains(cpu.id)) continue;
      EXPECT_GE(host.Distance(worker.home, cpu.node), host.Distance(worker.home, worker.node));
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

// Two emulated hosts of the lab, as their kernels showed them to hwloc: a device on each node's
// bus.
TEST(Exports, devices_serve_the_node_that_they_hang_on) {
  const auto plan = [](const char* name, uint32_t workers) {
    const auto host = TopologyFromXml(std::string(RAMFERRY_TOPOLOGIES) + "/" + name);
    EXPECT_TRUE(host.ok()) << host.status();
    std::vector<std::string> nics;
    for (const HostNic& nic : host->nics) nics.push_back(nic.name);
    const std::vector<SlicePlace> slices = SlicesEverywhere(*host);
    const WorkerPlan made = PlanWorkers({.host = *host,
                                         .slices = slices,
                                         .usable = FindUsableCpus(*host, {}, {}),
                                         .nics = nics,
                                         .workers = workers});
    std::vector<std::string> places;
    for (const WorkerPlace& worker : made.workers) {
      places.push_back(fmt::format("CPU {} of node {}, device of node {}",
                                   FormatCpuSet(worker.cpus), worker.node, worker.nic_node));
    }
    return places;
  };
  EXPECT_THAT(plan("two_nodes_four_nics.xml", 2), ElementsAre("CPU 0 of node 0, device of node 0",
                                                              "CPU 2 of node 1, device of node 1"));
  EXPECT_THAT(
      plan("four_nodes_four_nics.xml", 4),
      ElementsAre("CPU 0 of node 0, device of node 0", "CPU 1 of node 1, device of node 1",
                  "CPU 2 of node 2, device of node 2", "CPU 3 of node 3, device of node 3"));
}

}  // namespace
}  // namespace ramferry
