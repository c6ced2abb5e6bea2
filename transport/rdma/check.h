// What this host has for RDMA, and what is wrong with it: for `ramferry check` and before a
// migration.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/units.h"
#include "transport/rdma/needs.h"

namespace ramferry::rdma {

struct RdmaGid {
  uint32_t index = 0;
  std::string address;
  std::string kind;       // "InfiniBand", "RoCE v1", "RoCE v2"
  std::string interface;  // network interface, or empty
};

struct RdmaPort {
  uint32_t number = 0;
  bool active = false;
  std::string state;       // the device's word for it
  std::string link_layer;  // "InfiniBand", "Ethernet"
  double gigabits_per_second = 0;
  uint32_t mtu = 0;
  uint64_t largest_message = 0;
  std::vector<RdmaGid> gids;
};

struct RdmaDevice {
  std::string name;
  std::optional<int> numa_node;  // empty: the device does not say
  bool on_demand_paging = false;
  DeviceLimits limits;
  uint32_t most_requests = 0;  // in flight, a queue pair
  std::vector<RdmaPort> ports;
};

// As people write it: an IPv4 address where it is one.
[[nodiscard]] std::string GidAddress(const ibv_gid& gid);
// "InfiniBand", "RoCE v1", "RoCE v2"; `type` as in ibv_gid_entry.
[[nodiscard]] const char* GidKind(uint32_t type);

struct RdmaProblem {
  std::string what;
  std::string fix;
};

struct RdmaReport {
  std::vector<RdmaDevice> devices;
  std::optional<ByteCount> pin_limit;  // empty: none
  // What can be pinned for a guest that comes: free memory, within the limit.
  ByteCount pin_headroom;
  std::vector<RdmaProblem> problems;
  // A migration can use RDMA: there is an active port. It proves nothing about the way to a peer.
  bool usable = false;
};

// Reads only; opens each device for a moment.
[[nodiscard]] RdmaReport ProbeRdma();

// OK when one of the devices that could be used allows what is needed; else the first reason.
[[nodiscard]] absl::Status CheckDevices(const RdmaReport& report, const RdmaNeeds& needs);

// What is in the way of a migration with these needs, beside report.problems. Needs of no guest in
// particular: what would be in the way of any.
[[nodiscard]] std::vector<RdmaProblem> ProblemsFor(const RdmaReport& report,
                                                   const RdmaNeeds& needs);

}  // namespace ramferry::rdma
