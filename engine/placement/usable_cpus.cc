#include "engine/placement/usable_cpus.h"

#include <algorithm>
#include <map>
#include <set>

#include "fmt/format.h"

namespace ramferry {
namespace {

// Takes those of `cpus` for which `keep` holds; false, and nothing is changed, if none would stay.
template <class Keep>
bool Narrow(std::vector<HostCpu>& cpus, Keep keep) {
  std::vector<HostCpu> kept;
  std::copy_if(cpus.begin(), cpus.end(), std::back_inserter(kept), keep);
  if (kept.empty()) return false;
  cpus = std::move(kept);
  return true;
}

}  // namespace

CpuSet PinnedToVcpus(const HostTopology& host, std::span<const VcpuPlace> vcpus) {
  std::map<CpuSet, size_t> users;
  for (const VcpuPlace& vcpu : vcpus) ++users[vcpu.cpus];
  CpuSet pinned;
  for (const auto& [cpus, count] : users) {
    if (cpus.size() > count || cpus.size() >= host.cpus.size()) continue;
    pinned.insert(pinned.end(), cpus.begin(), cpus.end());
  }
  std::sort(pinned.begin(), pinned.end());
  pinned.erase(std::unique(pinned.begin(), pinned.end()), pinned.end());
  return pinned;
}

UsableCpus FindUsableCpus(const HostTopology& host, std::span<const VcpuPlace> vcpus,
                          const CpuSet& wanted) {
  UsableCpus usable{.cpus = host.cpus};
  Narrow(usable.cpus, [](const HostCpu& cpu) { return cpu.allowed; });
  const size_t allowed = usable.cpus.size();
  if (!wanted.empty()) {
    if (!Narrow(usable.cpus, [&](const HostCpu& cpu) { return Contains(wanted, cpu.id); })) {
      usable.notes.push_back(
          fmt::format("none of the CPUs {} may be used here: taking CPUs {} to {}",
                      FormatCpuSet(wanted), usable.cpus.front().id, usable.cpus.back().id));
    }
    usable.restricted = usable.cpus.size() < allowed;
    return usable;
  }
  if (!Narrow(usable.cpus, [&](const HostCpu& cpu) { return !Contains(host.isolated, cpu.id); })) {
    usable.notes.push_back("this process may use isolated CPUs only: it does");
  }
  const CpuSet pinned = PinnedToVcpus(host, vcpus);
  std::set<int> taken;
  for (const HostCpu& cpu : host.cpus) {
    if (Contains(pinned, cpu.id)) taken.insert(cpu.core);
  }
  if (!Narrow(usable.cpus, [&](const HostCpu& cpu) { return !taken.contains(cpu.core); })) {
    // Rather a sibling of a vCPU's thread than that very thread.
    Narrow(usable.cpus, [&](const HostCpu& cpu) { return !Contains(pinned, cpu.id); });
    usable.notes.push_back(
        "every core that may be used has vCPUs pinned to it: workers share them (--cpus)");
  }
  usable.restricted = usable.cpus.size() < allowed;
  return usable;
}

absl::Status CheckWantedCpus(const HostTopology& host, const CpuSet& wanted) {
  for (const int id : wanted) {
    const HostCpu* const cpu = host.FindCpu(id);
    if (cpu != nullptr && cpu->allowed) continue;
    return absl::InvalidArgumentError(
        fmt::format("CPU {} of --cpus {} {}", id, FormatCpuSet(wanted),
                    cpu == nullptr ? "is not online on this host"
                                   : "may not be used by this process (its cgroup or affinity)"));
  }
  return absl::OkStatus();
}

}  // namespace ramferry
