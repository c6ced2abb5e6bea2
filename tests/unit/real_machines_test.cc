// Plans for real machines of each kind that the planner must know: exports that hwloc's own tests
// have. Run by tests/lab/test_numa.py, which fetches them, and not by ctest.
//   RAMFERRY_TOPOLOGIES=$(tests/unit/topologies/real_machines)
//   build/release/tests/unit/real_machines_test
#include <cstdlib>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/placement_in_words.h"

namespace ramferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

HostTopology Machine(const std::string& name) {
  const char* const directory = std::getenv("RAMFERRY_TOPOLOGIES");
  const auto host = TopologyFromXml(std::string(directory ? directory : ".") + "/" + name + ".xml");
  EXPECT_TRUE(host.ok()) << host.status() << " (see the first lines of real_machines_test.cc)";
  return host.ok() ? *host : HostTopology{};
}

std::vector<int> AllNodes(const HostTopology& host) {
  std::vector<int> nodes;
  for (const HostNode& node : host.nodes) nodes.push_back(node.id);
  return nodes;
}

// Four sockets, SMT, one node (a Xeon of the front-side bus).
TEST(RealMachines, one_node_of_four_sockets_binds_nothing) {
  const HostTopology host = Machine("16em64t-4s2c2t");
  EXPECT_TRUE(host.one_node());
  EXPECT_THAT(Workers(host, {0}, 2), ElementsAre("CPU  of node -1, device of node -1",
                                                 "CPU  of node -1, device of node -1"));
  EXPECT_THAT(LandingNodes(host, 2), ElementsAre(-1, -1));
  EXPECT_THAT(Landing(host, 2).notes, IsEmpty());
}

// An HP ProLiant SL390s G7: node 0 has the CPUs of even numbers; N and N + 12 are of one core; all
// network devices are on node 0.
TEST(RealMachines, two_nodes_whose_cpus_alternate) {
  const HostTopology host = Machine("24em64t-2n6c2t-pci");
  EXPECT_THAT(
      Workers(host, {0, 1}, 4),
      ElementsAre("CPU 0 of node 0, device of node 0", "CPU 2 of node 0, device of node 0",
                  "CPU 1 of node 1, device of node 0", "CPU 3 of node 1, device of node 0"));
  const auto seven = Workers(host, {0}, 7);
  EXPECT_EQ(seven[5], "CPU 10 of node 0, device of node 0");
  EXPECT_EQ(seven[6], "CPU 12 of node 0, device of node 0") << "siblings last";
  EXPECT_THAT(LandingNodes(host, 2), ElementsAre(0, 1));
}

// A Supermicro X9DRG-HF: its mlx5_0 and all others are on node 1.
TEST(RealMachines, two_nodes_with_network_devices_on_the_second_only) {
  const HostTopology host = Machine("32em64t-2n8c2t-pci-normalio");
  EXPECT_THAT(Workers(host, {0, 1}, 2), ElementsAre("CPU 0 of node 0, device of node 1",
                                                    "CPU 8 of node 1, device of node 1"));
}

// A Cisco UCS B200 M4 in cluster-on-die mode: two sockets of two nodes, 21 within a socket, 31
// across.
TEST(RealMachines, clusters_on_a_die_help_each_other_first) {
  const HostTopology host = Machine("28intel64-2p2g7c-CoDgroups.v1tov2");
  const auto nine = Workers(host, {3}, 9);
  EXPECT_EQ(nine[6], "CPU 27 of node 3, device of node 0");
  EXPECT_EQ(nine[7], "CPU 14 of node 2, device of node 0");
  EXPECT_THAT(Workers(host, {0, 1, 2, 3}, 2), ElementsAre("CPU 0 of node 0, device of node 0",
                                                          "CPU 14 of node 2, device of node 0"))
      << "a worker a socket";
  EXPECT_THAT(LandingNodes(host, 2), ElementsAre(0, 1)) << "both on one socket";
}

// An IBM x3950 M2: four nodes with two network devices each.
TEST(RealMachines, four_nodes_with_devices_of_their_own) {
  EXPECT_THAT(
      Workers(Machine("96em64t-4n4d3ca2co-pci"), {0, 1, 2, 3}, 4),
      ElementsAre("CPU 0 of node 0, device of node 0", "CPU 24 of node 1, device of node 1",
                  "CPU 48 of node 2, device of node 2", "CPU 72 of node 3, device of node 3"));
}

// Eight Opterons on a Tyan S4881, whose CPUs are not numbered in the order of the nodes.
TEST(RealMachines, eight_nodes_in_another_order_than_their_cpus) {
  const HostTopology host = Machine("16amd64-4distances");
  EXPECT_THAT(
      Workers(host, AllNodes(host), 8),
      ElementsAre("CPU 2 of node 0, device of node -1", "CPU 0 of node 1, device of node -1",
                  "CPU 4 of node 2, device of node -1", "CPU 10 of node 3, device of node -1",
                  "CPU 8 of node 4, device of node -1", "CPU 6 of node 5, device of node -1",
                  "CPU 12 of node 6, device of node -1", "CPU 14 of node 7, device of node -1"));
}

// The same machine inside a cpuset: nodes 4 and 5 have memory and no CPU, nodes 0, 6 and 7 only
// CPUs.
TEST(RealMachines, a_cpuset_that_parts_memory_from_cpus) {
  const HostTopology host = Machine("16amd64-8n2c-cpusets");
  EXPECT_THAT(AllNodes(host), ElementsAre(1, 2, 3, 4, 5));
  const auto workers = Workers(host, {1, 2, 3, 4, 5}, 5);
  EXPECT_EQ(workers[0], "CPU 2 of node 1, device of node -1");
  EXPECT_EQ(workers[1], "CPU 5 of node 2, device of node -1");
  EXPECT_EQ(workers[2], "CPU 6 of node 3, device of node -1");
  EXPECT_THAT(workers[3], HasSubstr("CPU 3 of node 1,")) << "rather than one of no node";
  EXPECT_THAT(Workers(host, {1}, 5)[4], HasSubstr("CPU 0 of node -1,"));
  EXPECT_THAT(LandingNodes(host, 4), ElementsAre(1, 2, 3, 3)) << "memory alone is the last choice";
}

// An SGI UV 2000 of eight nodes, exported by a batch job that has two of them.
TEST(RealMachines, a_cpuset_of_two_nodes_out_of_eight) {
  const HostTopology host = Machine("64intel64-3g2n+2n-irregulargroups+pci");
  EXPECT_THAT(Workers(host, {0, 7}, 2), ElementsAre("CPU 0 of node 0, device of node 0",
                                                    "CPU 1 of node 0, device of node 0"));
  EXPECT_THAT(LandingNodes(host, 3), ElementsAre(0, 1, 0));
  EXPECT_THAT(Landing(host, 1, {{0, 2}}).refusals, ElementsAre(HasSubstr("cpuset.mems")));
}

// An Itanium machine: node 16 is memory alone, 10 from node 2 and 17 from node 0 (and 14 back).
TEST(RealMachines, memory_alone_whose_distances_are_not_symmetric) {
  const HostTopology host = Machine("8ia64-2n2s2c+1n.v1");
  EXPECT_THAT(Workers(host, {16}, 2), ElementsAre("CPU 16 of node 2, device of node -1",
                                                  "CPU 17 of node 2, device of node -1"));
  EXPECT_THAT(LandingNodes(host, 2), ElementsAre(0, 2));
}

// An SGI UV of 24 nodes, SMT, mlx4_0 on node 6: 50 within a blade, 65 and 79 beyond.
TEST(RealMachines, twenty_four_nodes) {
  const HostTopology host = Machine("192em64t-24n8c2t");
  const auto each = Workers(host, AllNodes(host), 24);
  for (size_t node = 0; node < each.size(); ++node) {
    EXPECT_THAT(each[node], HasSubstr(fmt::format("CPU {} of node {},", node * 8, node)));
  }
  const auto crowd = Workers(host, {6}, 17);
  EXPECT_THAT(crowd[7], HasSubstr("CPU 55 of node 6,"));
  EXPECT_THAT(crowd[8], HasSubstr("CPU 240 of node 6,")) << "siblings";
  EXPECT_THAT(crowd[16], HasSubstr("CPU 56 of node 7,")) << "the same blade";
  EXPECT_THAT(LandingNodes(host, 2), ElementsAre(0, 1)) << "one blade";
}

}  // namespace
}  // namespace ramferry
