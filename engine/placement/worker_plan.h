// The source's plan: how many workers, on which CPUs, which slices each begins with, and by which
// network device. A pure function of what was read and measured; docs/numa.md has the reasons.
//
//   const WorkerPlan plan = PlanWorkers({.host = host, .slices = slices, .workers = 4});
//
// Rules, the first one that decides wins:
//   1. A worker's slices lie on one node (its home), as long as there are as many workers as nodes
//      with memory of the guest.
//   2. It gets a CPU of its own if there is one; nearest to its home; no SMT sibling of another
//      worker's if there is another as near; nearest to its network device.
//   3. Its network device is the one nearest to its home that does not have its fair number of
//      workers yet: all devices are used, whatever node the memory is on.
// So where memory and device are on different nodes, the worker is near the memory: it reads every
// byte of it, while the device is only told of a batch now and then.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/guest_place.h"
#include "engine/placement/host_topology.h"
#include "engine/placement/usable_cpus.h"

namespace ramferry {

struct SlicePlace {
  uint64_t bytes = 0;  // of memory that is there, as far as is known
  int node = -1;       // where most of it is; -1: unknown, or nothing is there
};

struct WorkerPlanInput {
  const HostTopology& host;
  std::span<const SlicePlace> slices;
  UsableCpus usable;                   // FindUsableCpus
  std::vector<std::string> nics = {};  // those that lead to the destination; empty: not known
  uint32_t workers = 1;                // WorkerCount
};

struct WorkerPlace {
  int home = -1;    // the node of the memory it begins with; -1: no node in particular
  CpuSet cpus;      // where it is bound to; empty: it is not
  int node = -1;    // of these CPUs
  std::string nic;  // "": none in particular
  int nic_node = -1;
  std::vector<size_t> slices;  // what it begins with, indices of the input's
  uint64_t bytes = 0;          // in them
  std::string why;             // one line for a person
};

struct WorkerPlan {
  std::vector<WorkerPlace> workers;
  std::vector<std::string> notes;
  // There is something to say: more than one node, or CPUs that are not all the usual ones.
  bool places_anything = false;
};

// How many workers for a guest whose memory is on these nodes. `asked` (--workers) wins; 0: half of
// the usable CPUs that are nearest to its memory (the guest and others need the rest), at least
// one, at most eight, or two for each node if that is more.
[[nodiscard]] uint32_t WorkerCount(const HostTopology& host, const UsableCpus& usable,
                                   std::span<const int> memory_nodes, uint32_t asked);

[[nodiscard]] WorkerPlan PlanWorkers(const WorkerPlanInput& input);

}  // namespace ramferry
