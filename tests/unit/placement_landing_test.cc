// Where a guest's memory comes to on the destination, and the threads that receive it.
#include <string>
#include <vector>

#include "engine/placement/landing_plan.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ramferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Nodes of 8 GiB with four CPUs each, all free.
HostTopology Host(int nodes) {
  auto host = TopologyFromSynthetic("node:" + std::to_string(nodes) + " core:4 pu:1");
  EXPECT_TRUE(host.ok()) << host.status();
  for (HostNode& node : host->nodes) node.memory = node.available = GiB(8);
  return *host;
}

LandingRegion Region(int guest_node, ByteCount size, ByteCount populated) {
  return {.guest_node = guest_node, .size = size.value(), .populated = populated.value()};
}
LandingRegion Region(int guest_node, ByteCount size = GiB(2)) {
  return Region(guest_node, size, size);
}

struct Wishes {
  NumaMap map = {};
  std::vector<VcpuPlace> vcpus = {};
  std::vector<uint32_t> channel_regions = {};
  uint32_t channels = 2;
  CpuSet cpus = {};
};

LandingPlan Plan(const HostTopology& host, const std::vector<LandingRegion>& regions,
                 const Wishes& wishes = {}) {
  return PlanLanding({.host = host,
                      .regions = regions,
                      .usable = FindUsableCpus(host, wishes.vcpus, wishes.cpus),
                      .vcpus = wishes.vcpus,
                      .map = wishes.map,
                      .channel_regions = wishes.channel_regions,
                      .channels = wishes.channels});
}

std::vector<int> Nodes(const LandingPlan& plan) {
  std::vector<int> nodes;
  for (const RegionLanding& region : plan.regions) nodes.push_back(region.node);
  return nodes;
}

std::vector<std::string> ChannelCpus(const LandingPlan& plan) {
  std::vector<std::string> cpus;
  for (const ChannelLanding& channel : plan.channels) cpus.push_back(FormatCpuSet(channel.cpus));
  return cpus;
}

TEST(Landing, a_host_with_one_node_binds_nothing_and_says_nothing) {
  const LandingPlan plan = Plan(Host(1), {Region(0), Region(1)}, {.channel_regions = {0, 1}});
  EXPECT_THAT(Nodes(plan), ElementsAre(-1, -1));
  EXPECT_FALSE(plan.regions[0].bind);
  EXPECT_THAT(ChannelCpus(plan), ElementsAre("", ""));
  EXPECT_THAT(plan.notes, IsEmpty());
  EXPECT_THAT(plan.refusals, IsEmpty());
}

TEST(Landing, a_guest_without_nodes_is_left_to_the_kernel) {
  const LandingPlan plan = Plan(Host(2), {Region(-1)}, {.channel_regions = {0, 0}});
  EXPECT_THAT(Nodes(plan), ElementsAre(-1));
  EXPECT_THAT(ChannelCpus(plan), ElementsAre("", ""));
  EXPECT_THAT(plan.notes, IsEmpty());
}

TEST(Landing, each_guest_node_gets_a_node_of_its_own_and_its_threads_beside_it) {
  const LandingPlan plan = Plan(Host(2), {Region(0), Region(1)}, {.channel_regions = {1, 0}});
  EXPECT_THAT(Nodes(plan), ElementsAre(0, 1));
  EXPECT_TRUE(plan.regions[0].bind);
  EXPECT_THAT(ChannelCpus(plan), ElementsAre("4", "0"));
}

TEST(Landing, regions_of_one_guest_node_stay_together) {
  EXPECT_THAT(Nodes(Plan(Host(2), {Region(0), Region(1), Region(0, GiB(1))})),
              ElementsAre(0, 1, 0));
}

TEST(Landing, a_map_is_followed) {
  const LandingPlan plan =
      Plan(Host(4), {Region(0), Region(1)}, {.map = {{0, 3}, {1, 2}}, .channel_regions = {0, 1}});
  EXPECT_THAT(Nodes(plan), ElementsAre(3, 2));
  EXPECT_THAT(ChannelCpus(plan), ElementsAre("12", "8"));
  EXPECT_EQ(plan.regions[0].why, "--numa-map");
}

TEST(Landing, a_map_of_node_0_is_for_a_guest_without_nodes_too) {
  EXPECT_THAT(Nodes(Plan(Host(2), {Region(-1)}, {.map = {{0, 1}}})), ElementsAre(1));
}

TEST(Landing, a_map_to_no_node_of_this_host_is_refused) {
  EXPECT_THAT(Plan(Host(2), {Region(0)}, {.map = {{0, 2}}}).refusals,
              ElementsAre("--numa-map 0:2: the destination has no memory node 2, only 0, 1"));
  HostTopology host = Host(2);
  host.nodes[1].allowed = false;
  EXPECT_THAT(Plan(host, {Region(0)}, {.map = {{0, 1}}}).refusals,
              ElementsAre(HasSubstr("(its cgroup's cpuset.mems), only of 0")));
}

TEST(Landing, a_map_of_a_node_that_the_guest_does_not_have_is_refused) {
  EXPECT_THAT(Plan(Host(4), {Region(0), Region(1)}, {.map = {{0, 3}, {2, 1}}}).refusals,
              ElementsAre("--numa-map 2:1: the guest has no memory on a node 2: its nodes are 0, "
                          "1; name these"));
  EXPECT_THAT(Plan(Host(1), {Region(-1)}, {.map = {{0, 0}, {1, 0}}}).refusals,
              ElementsAre(HasSubstr("no memory on a node 1: its nodes are 0;")))
      << "nor on a host with one node; and a guest without nodes has one, 0";
  EXPECT_THAT(Plan(Host(2), {Region(0), Region(1)}, {.map = {{1, 0}}}).refusals, IsEmpty())
      << "a map may leave out some";
}

TEST(Landing, a_map_to_a_full_node_is_refused_and_growth_is_only_told) {
  HostTopology host = Host(2);
  host.nodes[1].available = GiB(1);
  EXPECT_THAT(Plan(host, {Region(0, GiB(2))}, {.map = {{0, 1}}}).refusals,
              ElementsAre(HasSubstr("uses 2.0 GiB, node 1 here has 1.0 GiB free")));
  const LandingPlan small = Plan(host, {Region(0, GiB(2), MiB(512))}, {.map = {{0, 1}}});
  EXPECT_THAT(small.refusals, IsEmpty());
  EXPECT_THAT(small.notes, ElementsAre(HasSubstr("may grow to 2.0 GiB")));
}

TEST(Landing, two_guest_nodes_mapped_to_one_must_fit_together) {
  EXPECT_THAT(
      Plan(Host(2), {Region(0, GiB(5)), Region(1, GiB(5))}, {.map = {{0, 0}, {1, 0}}}).refusals,
      ElementsAre(HasSubstr("node 0 here has 3.0 GiB free")));
  // What they use now must fit; that they could grow is told.
  const LandingPlan small = Plan(Host(2), {Region(0, GiB(8), GiB(1)), Region(1, GiB(8), GiB(1))},
                                 {.map = {{0, 0}, {1, 0}}});
  EXPECT_THAT(small.refusals, IsEmpty());
  EXPECT_THAT(small.notes, ElementsAre(HasSubstr("node 1 of the guest may grow to 8.0 GiB")));
}

TEST(Landing, a_full_node_is_avoided_and_if_all_are_full_that_is_told) {
  HostTopology host = Host(2);
  host.nodes[0].available = GiB(1);
  const LandingPlan plan = Plan(host, {Region(0, GiB(2)), Region(1, GiB(2))});
  EXPECT_THAT(Nodes(plan), ElementsAre(1, 1)) << "room counts more than a node of its own";
  EXPECT_THAT(plan.notes, IsEmpty());
  host.nodes[1].available = GiB(1);
  const LandingPlan full = Plan(host, {Region(0, GiB(2))});
  EXPECT_THAT(full.refusals, IsEmpty());
  EXPECT_THAT(full.notes, ElementsAre(HasSubstr("what does not fit comes from other nodes")));
}

TEST(Landing, huge_pages_are_counted_as_such) {
  HostTopology host = Host(2);
  host.nodes[0].free_huge_pages = {{2 << 20, 0}};
  host.nodes[1].free_huge_pages = {{2 << 20, 2048}};
  LandingRegion region = Region(0, GiB(2));
  region.backing_page_size = 2 << 20;
  EXPECT_THAT(Nodes(Plan(host, {region})), ElementsAre(1));
  EXPECT_THAT(Plan(host, {region}, {.map = {{0, 0}}}).refusals,
              ElementsAre(HasSubstr("0 MiB of such huge pages free")));
}

TEST(Landing, vcpus_that_are_pinned_draw_their_memory) {
  const std::vector<VcpuPlace> vcpus = {{.guest_node = 0, .cpus = {4, 5}},
                                        {.guest_node = 1, .cpus = {0, 1}}};
  EXPECT_THAT(Nodes(Plan(Host(2), {Region(0), Region(1)}, {.vcpus = vcpus})), ElementsAre(1, 0));
  // Also that of a guest without nodes.
  const std::vector<VcpuPlace> two(2, {.guest_node = 0, .cpus = {4, 5, 6}});
  EXPECT_THAT(Nodes(Plan(Host(2), {Region(-1)}, {.vcpus = two})), ElementsAre(1));
}

TEST(Landing, vcpus_on_cpus_of_no_node_say_nothing) {
  HostTopology host = Host(2);
  host.cpus[4].node = host.cpus[5].node = -1;
  const std::vector<VcpuPlace> vcpus = {{.guest_node = 0, .cpus = {4, 5}}};
  EXPECT_THAT(Nodes(Plan(host, {Region(0)}, {.vcpus = vcpus})), ElementsAre(0));
}

TEST(Landing, threads_keep_off_cores_of_pinned_vcpus) {
  const std::vector<VcpuPlace> vcpus = {{.guest_node = 0, .cpus = {0}},
                                        {.guest_node = 1, .cpus = {4}}};
  EXPECT_THAT(ChannelCpus(Plan(Host(2), {Region(0), Region(1)},
                               {.vcpus = vcpus, .channel_regions = {0, 1}})),
              ElementsAre("1", "5"));
}

TEST(Landing, the_hypervisors_own_policy_is_kept_unless_a_map_says_otherwise) {
  LandingRegion region = Region(0);
  region.has_policy = true;
  region.policy_node = 1;
  const LandingPlan kept = Plan(Host(2), {region}, {.channel_regions = {0, 0}});
  EXPECT_THAT(Nodes(kept), ElementsAre(1));
  EXPECT_FALSE(kept.regions[0].bind);
  EXPECT_THAT(ChannelCpus(kept), ElementsAre("4", "5"));
  const LandingPlan mapped = Plan(Host(2), {region}, {.map = {{0, 0}}});
  EXPECT_THAT(Nodes(mapped), ElementsAre(0));
  EXPECT_TRUE(mapped.regions[0].bind);
}

TEST(Landing, more_guest_nodes_than_host_nodes_share_them) {
  EXPECT_THAT(Nodes(Plan(Host(2), {Region(0), Region(1), Region(2), Region(3)})),
              ElementsAre(0, 1, 0, 1));
}

TEST(Landing, guest_nodes_go_to_nodes_that_are_near_to_each_other) {
  HostTopology host = Host(4);
  host.distances = {{10, 32, 12, 32}, {32, 10, 32, 12}, {12, 32, 10, 32}, {32, 12, 32, 10}};
  EXPECT_THAT(Nodes(Plan(host, {Region(0), Region(1)})), ElementsAre(0, 2));
}

TEST(Landing, nodes_without_cpus_are_the_last_choice) {
  HostTopology host = Host(2);
  host.nodes.push_back({.id = 2, .memory = GiB(64), .available = GiB(64)});
  EXPECT_THAT(Nodes(Plan(host, {Region(0), Region(1), Region(2)})), ElementsAre(0, 1, 0));
  host.nodes[0].available = host.nodes[1].available = GiB(1);
  EXPECT_THAT(Nodes(Plan(host, {Region(0)})), ElementsAre(2)) << "but better than none";
}

TEST(Landing, maps_are_written_as_pairs) {
  EXPECT_EQ(*ParseNumaMap("0:1,1:0"), (NumaMap{{0, 1}, {1, 0}}));
  EXPECT_EQ(*ParseNumaMap(""), NumaMap{});
  for (const char* wrong : {"0", "0:", ":1", "0:1,", "0:1,0:0", "a:b", "0:1:2", "-1:0", "0:5000"}) {
    EXPECT_FALSE(ParseNumaMap(wrong).ok()) << wrong;
  }
}

}  // namespace
}  // namespace ramferry
