// Which CPUs of a host Ramferry's own threads may take, and how many of its threads there should
// be.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/guest_place.h"
#include "engine/placement/host_topology.h"

namespace ramferry {

struct UsableCpus {
  std::vector<HostCpu> cpus;  // ascending; never empty unless the host has none
  // Not all that this process may use, so that threads must be bound to keep to them.
  bool restricted = false;
  std::vector<std::string> notes;  // for a person, where a rule could not be kept
};

// Allowed by the cgroup and this process's affinity; not isolated by the administrator; not a core
// that vCPUs are pinned to (nor its SMT siblings). `wanted` (--cpus; empty: no wish) chooses among
// the allowed ones and overrides the other rules. Rules that would leave no CPU are given up, in
// the reverse order, with a note.
[[nodiscard]] UsableCpus FindUsableCpus(const HostTopology& host, std::span<const VcpuPlace> vcpus,
                                        const CpuSet& wanted);

// CPUs that vCPUs have for themselves: sets with no more CPUs than vCPUs that are bound to them,
// unless it is the whole host.
[[nodiscard]] CpuSet PinnedToVcpus(const HostTopology& host, std::span<const VcpuPlace> vcpus);

// OK, or which of the `wanted` CPUs this process may not use.
[[nodiscard]] absl::Status CheckWantedCpus(const HostTopology& host, const CpuSet& wanted);

}  // namespace ramferry
