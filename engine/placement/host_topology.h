// What a host consists of, as far as placing workers and memory goes. Plain data: the planners
// (worker_plan.h, landing_plan.h) are functions of it, and a test can write one down.
//
//   ASSIGN_OR_RETURN(const HostTopology host, ReadHostTopology());       // this host
//   ASSIGN_OR_RETURN(const HostTopology two, TopologyFromSynthetic("node:2 core:4 pu:2"));
//
// Nodes, CPUs and devices are called what the kernel calls them.
#pragma once

#include <cstdint>
#include <istream>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cpu_set.h"
#include "base/units.h"

namespace ramferry {

struct HostNode {
  int id = 0;
  ByteCount memory;
  // What could be had now: free memory, without what the kernel keeps in reserve, and what the page
  // cache would give back.
  ByteCount available;
  // Free huge pages by their size in bytes.
  std::map<uint64_t, uint64_t> free_huge_pages;
  bool allowed = true;  // by this process's cgroup (cpuset.mems)
};

struct HostCpu {
  int id = 0;
  int core = 0;         // an index: CPUs of one core are SMT siblings
  int sibling = 0;      // 0: first thread of its core, 1: second one
  int node = 0;         // whose memory is nearest; -1: of none that is to be seen
  bool allowed = true;  // by cgroup and affinity of this process
};

struct HostNic {
  std::string name;   // "eth0", "mlx5_0"
  int node = -1;      // -1: unknown, or equally near to all
  bool rdma = false;  // an RDMA device
};

struct HostTopology {
  std::vector<HostNode> nodes;  // ascending; some may have no CPUs, or no memory
  std::vector<HostCpu> cpus;    // online, ascending
  std::vector<HostNic> nics;
  CpuSet isolated;  // kept free of others by the administrator (isolcpus=)
  // By indices of `nodes`; empty: unknown.
  std::vector<std::vector<uint64_t>> distances;

  [[nodiscard]] bool one_node() const { return nodes.size() <= 1; }
  [[nodiscard]] const HostNode* FindNode(int id) const;
  [[nodiscard]] const HostCpu* FindCpu(int id) const;
  // Of a CPU or a device of node `from` to memory of node `to`: 10 within a node and for what is
  // unknown (ACPI SLIT), 20 between nodes where nothing is said. Not always the same to and fro.
  [[nodiscard]] uint64_t Distance(int from, int to) const;
  // Of a CPU to memory of a node. One that is of no node is farther than all others.
  [[nodiscard]] uint64_t CpuDistance(const HostCpu& cpu, int to) const;
};

// This host, by hwloc, and what hwloc does not know: free memory, isolated CPUs.
[[nodiscard]] absl::StatusOr<HostTopology> ReadHostTopology();

// What the kernel keeps free of a node's memory: below that, new pages come from other nodes (the
// low watermarks of its zones; `zoneinfo` is /proc/zoneinfo).
[[nodiscard]] ByteCount ReserveOf(std::istream& zoneinfo, int node);

// A machine described by hwloc's synthetic notation, or one that lstopo exported (XML, with
// --disallowed; what it might use then is what is allowed). All memory is free.
[[nodiscard]] absl::StatusOr<HostTopology> TopologyFromSynthetic(const std::string& description);
[[nodiscard]] absl::StatusOr<HostTopology> TopologyFromXml(const std::string& path);

}  // namespace ramferry
