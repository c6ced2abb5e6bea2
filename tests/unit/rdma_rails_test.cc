// Which RDMA device each channel takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "hypervisor-glue/tracking/memory_file.h"
#include "transport/rdma/rails.h"

namespace ramferry::rdma {
namespace {

using ::testing::ElementsAre;

// Nodes in a row, each 10 from itself and 10 more a step.
int InARow(int from, int to) {
  return 10 + 10 * std::abs(from - to);
}

std::vector<size_t> Choose(const std::vector<NumaNode>& channels,
                           const std::vector<NumaNode>& rails) {
  return ChooseRails(channels, rails, InARow);
}

TEST(RdmaRails, a_channel_takes_the_rail_nearest_to_its_memory) {
  EXPECT_THAT(Choose({0, 0, 1, 1}, {1, 0}), ElementsAre(1, 1, 0, 0));
  EXPECT_THAT(Choose({0, 1, 2, 3}, {0, 3}), ElementsAre(0, 0, 1, 1));
}

TEST(RdmaRails, rails_that_are_equally_near_are_shared_out) {
  EXPECT_THAT(Choose({0, 0, 0, 0}, {0, 0}), ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(Choose({1, 1, 1}, {0, 2, 2}), ElementsAre(0, 1, 2));
}

TEST(RdmaRails, without_knowledge_they_are_shared_out) {
  const NumaNode unknown;
  EXPECT_THAT(Choose({unknown, unknown, unknown}, {0, 1}), ElementsAre(0, 1, 0));
  EXPECT_THAT(Choose({0, 0, 0}, {unknown, unknown}), ElementsAre(0, 1, 0));
}

ChannelOffer Offered(const std::string& address, std::vector<std::string> others) {
  return {.transport = "rdma", .address = address, .other_addresses = std::move(others)};
}

TEST(RdmaRails, the_control_channels_address_comes_first_where_a_device_has_it) {
  const Ways ways = WaysOf(Offered("10.9.1.2", {"10.9.0.2", "10.9.1.2", "fd00::2"}));
  EXPECT_THAT(ways.addresses, ElementsAre("10.9.1.2", "10.9.0.2", "fd00::2"));
  EXPECT_EQ(ways.last_resort, "");
}

TEST(RdmaRails, an_address_that_no_device_there_has_is_the_last_resort) {
  const Ways ways = WaysOf(Offered("10.9.0.2", {"10.9.1.2"}));
  EXPECT_THAT(ways.addresses, ElementsAre("10.9.1.2"));
  EXPECT_EQ(ways.last_resort, "10.9.0.2");
}

TEST(RdmaRails, a_destination_that_names_no_addresses_has_the_one) {
  const Ways ways = WaysOf(Offered("10.9.0.2", {}));
  EXPECT_THAT(ways.addresses, ElementsAre("10.9.0.2"));
  EXPECT_EQ(ways.last_resort, "");
}

TEST(RdmaRails, the_kernel_knows_its_distances) {
  EXPECT_EQ(KernelNodeDistance(0, 0), 10);
  EXPECT_EQ(KernelNodeDistance(0, 100'000), 10) << "a node that is not there";
}

TEST(RdmaRails, where_memory_is_is_found_without_populating_it) {
  const MemoryFile file = *MemoryFile::Create(MiB(64), "ram");
  MappedRegion region;
  region.description.size = file.size();
  region.address = file.address();
  region.fd = file.fd();
  // The second half of the memory is never touched.
  for (uint64_t at = 0; at < MiB(32).value(); at += kPageBytes) file.address()[at] = std::byte{1};
  const ByteCount before = *file.Populated();
  const auto nodes = NodesOfShares({&region, 1}, 2);
  EXPECT_EQ(*file.Populated(), before);
  ASSERT_EQ(nodes.size(), 2U);
  if (!nodes[0]) GTEST_SKIP() << "this kernel does not tell nodes (no CONFIG_NUMA)";
  EXPECT_GE(*nodes[0], 0);
  EXPECT_FALSE(nodes[1].has_value());
}

}  // namespace
}  // namespace ramferry::rdma
