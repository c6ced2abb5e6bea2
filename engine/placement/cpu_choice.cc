#include "engine/placement/cpu_choice.h"

#include <algorithm>
#include <tuple>

namespace ramferry {

HostCpu CpuChoice::Take(int home, int nic) {
  const auto key = [&](const HostCpu& cpu) {
    return std::tuple(on_cpu_[cpu.id], host_.CpuDistance(cpu, home), on_core_[cpu.core],
                      host_.CpuDistance(cpu, nic), cpu.sibling, cpu.id);
  };
  const HostCpu best =
      *std::min_element(cpus_.begin(), cpus_.end(),
                        [&key](const HostCpu& a, const HostCpu& b) { return key(a) < key(b); });
  ++on_cpu_[best.id];
  ++on_core_[best.core];
  return best;
}

}  // namespace ramferry
