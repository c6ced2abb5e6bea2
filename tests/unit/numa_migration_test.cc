// Whole migrations on a host with two NUMA nodes: real threads and memory, on nodes that are
// invented where this machine has but one.
#include <algorithm>
#include <atomic>
#include <fstream>
#include <mutex>
#include <set>
#include <string>

#include "base/numa_memory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/engine_site.h"

namespace ramferry {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Two nodes with a CPU each, which are CPUs that this process may use.
HostTopology TwoNodes() {
  const CpuSet allowed = AffinityOf(0);
  HostTopology host;
  for (int node = 0; node < 2; ++node) {
    host.nodes.push_back({.id = node, .memory = GiB(64), .available = GiB(64)});
    host.cpus.push_back(
        {.id = allowed[std::min<size_t>(static_cast<size_t>(node), allowed.size() - 1)],
         .core = node,
         .node = node});
  }
  return host;
}

// The first half of a region of the guest (16 MiB) is on node 1, the rest on node 0.
int Crossed(RegionId /*region*/, uint64_t page) {
  return page < MiB(8).value() / kPageBytes ? 1 : 0;
}

TEST(NumaMigration, workers_are_bound_where_the_plan_says_and_begin_with_memory_beside_them) {
  MigrationSite site;
  site.host = TwoNodes();
  if (site.host->cpus[0].id == site.host->cpus[1].id) GTEST_SKIP() << "one CPU only";
  site.node_of = Crossed;
  std::mutex mutex;
  std::set<CpuSet> seen;
  site.on_source = [&](std::string_view call) {
    if (call == "CollectDirty") {
      const std::lock_guard lock(mutex);
      seen.insert(AffinityOf(0));
    }
    return absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  EXPECT_EQ(seen, (std::set<CpuSet>{{site.host->cpus[0].id}, {site.host->cpus[1].id}}));
  ASSERT_EQ(report.placement.size(), 2U);
  for (int node = 0; node < 2; ++node) {
    const WorkerReport& worker = report.placement[static_cast<size_t>(node)];
    EXPECT_EQ(worker.memory_node, node);
    EXPECT_EQ(worker.node, node);
    EXPECT_EQ(worker.cpus, std::to_string(site.host->cpus[static_cast<size_t>(node)].id));
  }
}

// As /proc/PID/numa_maps has them: what the lab looks at, where there are nodes to tell apart.
size_t LocalMappings() {
  std::ifstream maps("/proc/self/maps");
  size_t count = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/memfd:ramferry-local") != std::string::npos) ++count;
  }
  return count;
}

TEST(NumaMigration, what_workers_use_all_the_time_is_in_pages_of_its_own) {
  MigrationSite site;
  const size_t before = LocalMappings();
  std::atomic<size_t> most{0};
  site.on_source = [&](std::string_view call) {
    if (call == "CollectDirty") most = std::max(most.load(), LocalMappings() - before);
    return absl::OkStatus();
  };
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  // Of each: the shipper and its two batches, the channel, the buffer that receives.
  EXPECT_GE(most.load(), 5 * report.workers);
  EXPECT_EQ(LocalMappings(), before);
}

TEST(NumaMigration, memory_is_bound_before_it_lands_and_the_destination_says_where_it_is) {
  MigrationSite site;
  site.host = TwoNodes();
  site.landing.map = {{0, 0}};
  bool bound = false;
  site.on_destination = [&](std::string_view call) {
    if (call == "LoadDeviceState") bound = HasPolicy(site.destination()->regions()[0].address);
    return absl::OkStatus();
  };
  site.ExpectMigrated(site.Migrate());
  for (const MappedRegion& region : site.destination()->regions()) {
    EXPECT_EQ(PolicyNode(region.address), 0);
  }
  EXPECT_TRUE(bound);
  EXPECT_THAT(site.notes(),
              Contains(testing::AllOf(HasSubstr("memory ram: "),
                                      HasSubstr("on node 0, as planned (--numa-map)"))));
}

TEST(NumaMigration, a_map_that_cannot_be_kept_is_refused_before_a_page_is_sent) {
  MigrationSite site;
  site.host = TwoNodes();
  site.landing.map = {{0, 7}};
  const MigrationReport report = site.Migrate();
  site.ExpectRolledBack(report);
  EXPECT_THAT(report.error, HasSubstr("the destination has no memory node 7"));
  EXPECT_TRUE(report.rounds.empty());
  site.landing.map = {};
  site.ExpectMigrated(site.Migrate());
}

TEST(NumaMigration, one_node_changes_nothing_and_says_nothing) {
  MigrationSite plain;
  plain.ExpectMigrated(plain.Migrate());
  MigrationSite site;
  site.host = TwoNodes();
  site.host->nodes.pop_back();
  site.host->cpus[1].node = 0;
  const MigrationReport report = site.Migrate();
  site.ExpectMigrated(report);
  EXPECT_EQ(report.workers, 2U);
  EXPECT_THAT(report.placement, IsEmpty());
  EXPECT_EQ(site.notes(), plain.notes());
  EXPECT_FALSE(HasPolicy(site.destination()->regions()[0].address));
}

}  // namespace
}  // namespace ramferry
