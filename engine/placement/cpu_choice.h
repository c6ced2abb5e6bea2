// Gives threads CPUs, one after the other.
#pragma once

#include <map>
#include <vector>

#include "engine/placement/host_topology.h"

namespace ramferry {

class CpuChoice {
 public:
  // `cpus` must not be empty. `host` outlives this.
  CpuChoice(const HostTopology& host, std::vector<HostCpu> cpus)
      : host_(host), cpus_(std::move(cpus)) {}

  // A CPU that no thread has yet, if there is one; the nearest to memory of node `home` (-1: no
  // matter); no SMT sibling of one that was given if another is as near; the nearest to a device on
  // node `nic` (-1: no matter).
  HostCpu Take(int home, int nic);

 private:
  const HostTopology& host_;
  std::vector<HostCpu> cpus_;
  std::map<int, unsigned> on_cpu_;   // threads by CPU
  std::map<int, unsigned> on_core_;  // threads by core
};

}  // namespace ramferry
