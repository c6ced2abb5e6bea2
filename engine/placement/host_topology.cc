#include "engine/placement/host_topology.h"

#include <algorithm>

namespace ramferry {
namespace {

constexpr uint64_t kHere = 10;
constexpr uint64_t kElsewhere = 20;
constexpr uint64_t kUnreachable = 255;  // as in ACPI's SLIT

}  // namespace

const HostNode* HostTopology::FindNode(int id) const {
  const auto node = std::find_if(nodes.begin(), nodes.end(),
                                 [id](const HostNode& candidate) { return candidate.id == id; });
  return node == nodes.end() ? nullptr : &*node;
}

const HostCpu* HostTopology::FindCpu(int id) const {
  const auto cpu = std::find_if(cpus.begin(), cpus.end(),
                                [id](const HostCpu& candidate) { return candidate.id == id; });
  return cpu == cpus.end() ? nullptr : &*cpu;
}

uint64_t HostTopology::Distance(int from, int to) const {
  const HostNode* const a = FindNode(from);
  const HostNode* const b = FindNode(to);
  if (a == nullptr || b == nullptr || a == b) return kHere;
  if (distances.empty()) return kElsewhere;
  return distances[static_cast<size_t>(a - nodes.data())][static_cast<size_t>(b - nodes.data())];
}

uint64_t HostTopology::CpuDistance(const HostCpu& cpu, int to) const {
  return cpu.node < 0 ? kUnreachable : Distance(cpu.node, to);
}

}  // namespace ramferry
