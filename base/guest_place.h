// Where the virtual CPUs of a guest run on this host.
#pragma once

#include "base/cpu_set.h"

namespace ramferry {

struct VcpuPlace {
  int guest_node = -1;  // the guest's own NUMA node of it; -1: none stated
  CpuSet cpus;          // where its thread may run
};

}  // namespace ramferry
