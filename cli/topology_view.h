// What `ramferry topology` shows, and its three forms. Plain data in, text out: tested without a
// guest and without NUMA.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/guest_place.h"
#include "engine/placement/host_topology.h"
#include "engine/placement/worker_plan.h"

namespace ramferry {

struct MemoryView {
  std::string name;
  int guest_node = -1;
  uint64_t size = 0;
  uint64_t populated = 0;
  std::map<int, uint64_t> bytes_by_node;  // measured; empty: one node, or nobody can tell
};

struct GuestView {
  std::string name;
  std::vector<MemoryView> memory;
  std::vector<VcpuPlace> vcpus;
  WorkerPlan plan;
};

struct TopologyView {
  HostTopology host;
  std::optional<GuestView> guest;

  // What is to be said about a CPU: "worker 2", "vCPUs", "isolated", "not allowed", or "".
  [[nodiscard]] std::string UseOf(const HostCpu& cpu) const;
  // Bytes of the guest on a node; all of it on a host with one.
  [[nodiscard]] uint64_t GuestBytesOn(int node) const;
};

[[nodiscard]] std::string FormatTopology(const TopologyView& view);
[[nodiscard]] std::string TopologyJson(const TopologyView& view);
// A drawing: a box for each node with its memory, CPUs and network devices, and the workers in it.
[[nodiscard]] std::string TopologySvg(const TopologyView& view);

}  // namespace ramferry
