// What the planners make of a machine, as text that a test can list.
#pragma once

#include <string>
#include <vector>

#include "engine/placement/host_topology.h"
#include "engine/placement/landing_plan.h"
#include "engine/placement/worker_plan.h"
#include "fmt/format.h"

namespace ramferry {

// Four slices of 64 MiB on each of these nodes.
inline std::vector<SlicePlace> SlicesOn(const std::vector<int>& nodes) {
  std::vector<SlicePlace> slices;
  for (const int node : nodes) {
    slices.insert(slices.end(), 4, {.bytes = MiB(64).value(), .node = node});
  }
  return slices;
}

// Where the workers go: "CPU 0 of node 0, device of node 0".
inline std::vector<std::string> Workers(const HostTopology& host, const std::vector<int>& memory,
                                        uint32_t workers) {
  std::vector<std::string> nics;
  for (const HostNic& nic : host.nics) nics.push_back(nic.name);
  const std::vector<SlicePlace> slices = SlicesOn(memory);
  const WorkerPlan made = PlanWorkers({.host = host,
                                       .slices = slices,
                                       .usable = FindUsableCpus(host, {}, {}),
                                       .nics = nics,
                                       .workers = workers});
  std::vector<std::string> places;
  for (const WorkerPlace& worker : made.workers) {
    places.push_back(fmt::format("CPU {} of node {}, device of node {}", FormatCpuSet(worker.cpus),
                                 worker.node, worker.nic_node));
  }
  return places;
}

// The node that each node of a guest comes to.
inline LandingPlan Landing(const HostTopology& host, int guest_nodes, const NumaMap& map = {}) {
  std::vector<LandingRegion> regions;
  for (int node = 0; node < guest_nodes; ++node) {
    regions.push_back({.guest_node = node, .size = MiB(1).value(), .populated = MiB(1).value()});
  }
  return PlanLanding({.host = host,
                      .regions = regions,
                      .usable = FindUsableCpus(host, {}, {}),
                      .map = map,
                      .channels = 1});
}
inline std::vector<int> LandingNodes(const HostTopology& host, int guest_nodes) {
  std::vector<int> nodes;
  for (const RegionLanding& region : Landing(host, guest_nodes).regions) {
    nodes.push_back(region.node);
  }
  return nodes;
}

}  // namespace ramferry
