// The destination's plan: which node each region's memory comes to, and on which CPUs the threads
// that receive it run. A pure function, as worker_plan.h; docs/numa.md has the reasons.
//
//   LandingPlan plan = PlanLanding({.host = host, .regions = regions, .usable = usable});
//   if (!plan.refusals.empty()) ...
//
// Regions of one guest node stay together. Where a guest node goes, the first rule that decides
// wins: --numa-map; the policy that the hypervisor was started with (host-nodes=); the node that
// its vCPUs are pinned to; a node that has the memory free; a node that no other guest node has; a
// node near to those of the other guest nodes; the node of the same number. A guest without NUMA
// nodes is left to the kernel, unless --numa-map (as node 0), a policy or pinned vCPUs say
// something.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/guest_place.h"
#include "engine/placement/host_topology.h"
#include "engine/placement/usable_cpus.h"

namespace ramferry {

// Guest node to host node, as in --numa-map 0:1,1:0.
using NumaMap = std::map<int, int>;
// InvalidArgument names what is wrong. Empty text: an empty map.
[[nodiscard]] absl::StatusOr<NumaMap> ParseNumaMap(const std::string& text);

// For each pair that names memory which is not on this host, or may not be used: the reason.
[[nodiscard]] std::vector<std::string> WrongHostNodes(const HostTopology& host, const NumaMap& map);

struct LandingRegion {
  int guest_node = -1;
  uint64_t size = 0;
  uint64_t populated = 0;          // bytes that the guest uses on the source; at most size
  uint64_t backing_page_size = 0;  // 0 or 4096: not huge pages
  bool has_policy = false;         // its hypervisor chose where its memory comes from
  int policy_node = -1;            // ... namely this node, or -1: several, or none in particular
};

struct LandingPlanInput {
  const HostTopology& host;
  std::span<const LandingRegion> regions;
  UsableCpus usable;                      // FindUsableCpus
  std::span<const VcpuPlace> vcpus = {};  // of the hypervisor that waits here
  NumaMap map = {};
  // For each page channel the region that it brings most of; more or fewer are possible: unknown.
  std::span<const uint32_t> channel_regions = {};
  uint32_t channels = 1;
};

struct RegionLanding {
  int node = -1;      // -1: left to the kernel, or to the policy that it has
  bool bind = false;  // to be bound to `node` before it is touched
  std::string why;
};

struct ChannelLanding {
  CpuSet cpus;    // where its thread is bound to; empty: it is not
  int node = -1;  // of its memory; -1: none in particular
};

struct LandingPlan {
  std::vector<RegionLanding> regions;
  std::vector<ChannelLanding> channels;
  std::vector<std::string> notes;     // for a person
  std::vector<std::string> refusals;  // why the guest cannot come, each with what to change
};

[[nodiscard]] LandingPlan PlanLanding(const LandingPlanInput& input);

}  // namespace ramferry
