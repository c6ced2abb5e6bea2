// `ramferry topology`: what a person is shown of a plan.
#include "cli/topology_view.h"
#include "engine/placement/usable_cpus.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Two nodes with two CPUs each, a device at the second; a guest of two nodes, crossed over.
TopologyView TwoNodes() {
  TopologyView view{.host = *TopologyFromSynthetic("node:2 core:2 pu:1")};
  for (HostNode& node : view.host.nodes) node.memory = node.available = GiB(16);
  view.host.nics = {{.name = "mlx5_0", .node = 1, .rdma = true}, {.name = "bond0"}};
  view.host.isolated = {3};
  const std::vector<VcpuPlace> vcpus = {{.guest_node = 0, .cpus = {2}}};
  const std::vector<SlicePlace> slices = {{.bytes = MiB(64).value(), .node = 1},
                                          {.bytes = MiB(64).value(), .node = 0}};
  view.guest = {.name = "web<1>",
                .memory = {{.name = "ram0",
                            .guest_node = 0,
                            .size = GiB(1).value(),
                            .populated = MiB(64).value(),
                            .bytes_by_node = {{1, MiB(64).value()}}},
                           {.name = "ram1",
                            .guest_node = 1,
                            .size = GiB(1).value(),
                            .populated = MiB(64).value(),
                            .bytes_by_node = {{0, MiB(64).value()}}}},
                .vcpus = vcpus,
                .plan = PlanWorkers({.host = view.host,
                                     .slices = slices,
                                     .usable = FindUsableCpus(view.host, vcpus, {}),
                                     .nics = {"mlx5_0"},
                                     .workers = 2})};
  return view;
}

TEST(Topology, text_shows_nodes_the_guests_memory_and_why_a_worker_is_where_it_is) {
  const std::string text = FormatTopology(TwoNodes());
  EXPECT_THAT(text, HasSubstr("host: 2 NUMA nodes, 4 CPUs\n"));
  EXPECT_THAT(
      text, HasSubstr("node 1: CPUs 2-3, 16.0 GiB of memory, 16.0 GiB available; distances 20 10; "
                      "mlx5_0 (RDMA)\n"));
  EXPECT_THAT(text, HasSubstr("network devices of no particular node: bond0\n"));
  EXPECT_THAT(text, HasSubstr("isolated CPUs: 3\n"));
  EXPECT_THAT(text,
              HasSubstr("memory ram0 (guest node 0): 64 MiB of 1024 MiB used, 64 MiB on node 1\n"));
  EXPECT_THAT(text, HasSubstr("its vCPUs have CPUs 2 for themselves\n"));
  EXPECT_THAT(
      text,
      HasSubstr("worker 0: CPU 0 (node 0), 1 slices with 64 MiB of node 0, mlx5_0: beside its "
                "memory; its device is at distance 20: memory wins\n"));
  EXPECT_THAT(
      text,
      HasSubstr("worker 1: CPU 1 (node 0), 1 slices with 64 MiB of node 1, mlx5_0: no CPU of node "
                "1 is free: distance 20, its device too\n"));
}

TEST(Topology, json_says_the_same) {
  const auto json = nlohmann::json::parse(TopologyJson(TwoNodes()));
  EXPECT_EQ(json["nodes"][1]["cpus"], "2-3");
  EXPECT_EQ(json["nodes"][0]["distances"]["1"], 20);
  EXPECT_EQ(json["nics"][0]["node"], 1);
  EXPECT_EQ(json["guest"]["memory"][0]["bytes_by_node"]["1"], MiB(64).value());
  EXPECT_EQ(json["guest"]["workers"][0]["cpus"], "0");
  EXPECT_EQ(json["guest"]["workers"][1]["memory_node"], 1);
  EXPECT_EQ(json["guest"]["workers"][1]["nic"], "mlx5_0");
}

TEST(Topology, drawing_has_a_box_for_each_node_and_no_raw_names) {
  TopologyView view = TwoNodes();
  view.guest->plan.notes = {"a note"};
  const std::string svg = TopologySvg(view);
  EXPECT_TRUE(svg.starts_with("<svg "));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  for (const char* expected :
       {">node 0<", ">node 1<", "worker 0: CPU 0", "CPU 2: vCPUs", "CPU 3: isolated", "mlx5_0",
        "web&lt;1&gt;", ">ram0 (guest node 0): 64 MiB<",
        ">worker 1: CPU 1, 1 slices of node 1, mlx5_0<", ">⇄ bond0, of no particular node<",
        ">a note<"}) {
    EXPECT_THAT(svg, HasSubstr(expected));
  }
  EXPECT_THAT(svg, Not(HasSubstr("<1>")));
}

TEST(Topology, drawing_of_one_node_has_its_workers_too) {
  TopologyView view{.host = *TopologyFromSynthetic("node:1 core:2 pu:1")};
  view.guest = {.name = "web1", .memory = {{.name = "ram", .populated = MiB(64).value()}}};
  view.guest->plan.workers.resize(2);
  const std::string svg = TopologySvg(view);
  for (const char* expected : {">ram: 64 MiB<", ">worker 0: any CPU", ">worker 1: any CPU"}) {
    EXPECT_THAT(svg, HasSubstr(expected));
  }
}

TEST(Topology, reasons_stay_in_their_box) {
  TopologyView view = TwoNodes();
  view.guest->plan.workers[0].why = std::string(30, 'a') + " " + std::string(30, 'b');
  const std::string svg = TopologySvg(view);
  EXPECT_THAT(svg, HasSubstr(">" + std::string(30, 'a') + "<"));
  EXPECT_THAT(svg, HasSubstr(">" + std::string(30, 'b') + "<"));
}

TEST(Topology, of_a_host_alone_has_no_workers) {
  const TopologyView view{.host = *TopologyFromSynthetic("node:1 core:2 pu:1")};
  EXPECT_THAT(FormatTopology(view), HasSubstr("host: 1 NUMA node, 2 CPUs\n"));
  EXPECT_THAT(FormatTopology(view), Not(HasSubstr("distances")));
  EXPECT_THAT(FormatTopology(view), Not(HasSubstr("worker")));
  EXPECT_FALSE(nlohmann::json::parse(TopologyJson(view)).contains("guest"));
  EXPECT_THAT(TopologySvg(view), HasSubstr(">node 0<"));
}

}  // namespace
}  // namespace ramferry
