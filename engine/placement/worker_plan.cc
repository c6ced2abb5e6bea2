#include "engine/placement/worker_plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "engine/placement/cpu_choice.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

constexpr uint32_t kMostByDefault = 8;
constexpr uint32_t kMostANode = 2;

// A node that workers are at home on, and what they begin with.
struct Home {
  int node = -1;
  uint64_t bytes = 0;
  std::vector<size_t> slices;
  uint32_t workers = 0;
};

// Less than this part of a worker's fair share is not worth a worker of its own.
constexpr uint64_t kWorthAWorker = 4;

// The home that can best be done without: whose memory is the least, each byte counted as often as
// it is away from the nearest other home.
size_t LeastMissed(const HostTopology& host, const std::vector<Home>& homes) {
  const auto key = [&](const Home& home) {
    uint64_t away = UINT64_MAX;
    for (const Home& other : homes) {
      if (other.node != home.node) away = std::min(away, host.Distance(other.node, home.node));
    }
    const double farther = static_cast<double>(away) - 10;  // than its own memory
    return std::tuple(farther * static_cast<double>(home.bytes), home.bytes, -home.node);
  };
  const auto least = std::min_element(
      homes.begin(), homes.end(), [&](const Home& a, const Home& b) { return key(a) < key(b); });
  return static_cast<size_t>(least - homes.begin());
}

// Its slices go to the nearest other home; of several that are as near, to the one with the least.
void GiveUp(const HostTopology& host, std::vector<Home>& homes, size_t index) {
  const Home last = std::move(homes[index]);
  homes.erase(homes.begin() + static_cast<ptrdiff_t>(index));
  const auto key = [&](const Home& home) {
    return std::tuple(host.Distance(home.node, last.node), home.bytes);
  };
  const auto nearest = std::min_element(
      homes.begin(), homes.end(), [&](const Home& a, const Home& b) { return key(a) < key(b); });
  nearest->bytes += last.bytes;
  nearest->slices.insert(nearest->slices.end(), last.slices.begin(), last.slices.end());
}

// The nodes with memory of the guest, no more than there are workers, and none that is not worth
// one. Slices of the other nodes go to near ones; slices of unknown place are left out.
std::vector<Home> FindHomes(const WorkerPlanInput& input) {
  std::map<int, Home> by_node;
  uint64_t total = 0;
  for (size_t i = 0; i < input.slices.size(); ++i) {
    const SlicePlace& slice = input.slices[i];
    if (slice.node < 0) continue;
    Home& home = by_node[slice.node];
    home.node = slice.node;
    home.bytes += slice.bytes;
    home.slices.push_back(i);
    total += slice.bytes;
  }
  std::vector<Home> homes;
  homes.reserve(by_node.size());
  for (auto& [node, home] : by_node) homes.push_back(std::move(home));
  const auto smallest = [&homes] {
    const auto least = std::min_element(
        homes.begin(), homes.end(), [](const Home& a, const Home& b) { return a.bytes < b.bytes; });
    return static_cast<size_t>(least - homes.begin());
  };
  while (homes.size() > 1 && homes[smallest()].bytes < total / input.workers / kWorthAWorker) {
    GiveUp(input.host, homes, smallest());
  }
  while (homes.size() > input.workers) {
    GiveUp(input.host, homes, LeastMissed(input.host, homes));
  }
  if (homes.empty()) homes.push_back({});
  return homes;
}

// One worker each, and the others where most memory is left for each worker.
void ShareOutWorkers(std::vector<Home>& homes, uint32_t workers) {
  for (Home& home : homes) home.workers = 1;
  for (size_t given = homes.size(); given < workers; ++given) {
    const auto neediest = std::max_element(
        homes.begin(), homes.end(),
        [](const Home& a, const Home& b) { return a.bytes / a.workers < b.bytes / b.workers; });
    ++neediest->workers;
  }
}

// Cuts a home's slices, in their order, into one part of about equal bytes for each of its workers.
void CutSlices(const WorkerPlanInput& input, const Home& home, std::vector<WorkerPlace>& workers) {
  const size_t first = workers.size();
  workers.resize(first + home.workers);
  const double fair = static_cast<double>(home.bytes) / home.workers;
  uint64_t before = 0;
  for (const size_t slice : home.slices) {
    const uint64_t bytes = input.slices[slice].bytes;
    // By the middle of the slice.
    const double middle = static_cast<double>(before) + static_cast<double>(bytes) / 2;
    const auto part = fair > 0 ? static_cast<size_t>(middle / fair) : 0;
    WorkerPlace& worker = workers[first + std::min<size_t>(part, home.workers - 1)];
    worker.slices.push_back(slice);
    worker.bytes += bytes;
    before += bytes;
  }
  for (size_t i = first; i < workers.size(); ++i) workers[i].home = home.node;
}

// Slices of unknown place (holes, mostly), in as many pieces as there are workers.
void ShareOutUnknown(const WorkerPlanInput& input, std::vector<WorkerPlace>& workers) {
  std::vector<size_t> unknown;
  for (size_t i = 0; i < input.slices.size(); ++i) {
    if (input.slices[i].node < 0) unknown.push_back(i);
  }
  for (size_t i = 0; i < unknown.size(); ++i) {
    WorkerPlace& worker = workers[i * workers.size() / unknown.size()];
    worker.slices.push_back(unknown[i]);
    worker.bytes += input.slices[unknown[i]].bytes;
  }
}

// Gives each worker its network device. One that serves more than its fair part would limit all.
void ChooseNics(const WorkerPlanInput& input, std::vector<WorkerPlace>& workers) {
  if (input.nics.empty()) return;
  std::map<std::string, size_t> load;
  const size_t fair = (workers.size() + input.nics.size() - 1) / input.nics.size();
  for (WorkerPlace& worker : workers) {
    const HostNic* best = nullptr;
    const auto key = [&](const HostNic& nic) {
      return std::tuple(load[nic.name] >= fair, input.host.Distance(nic.node, worker.home),
                        load[nic.name]);
    };
    for (const HostNic& nic : input.host.nics) {
      if (std::find(input.nics.begin(), input.nics.end(), nic.name) == input.nics.end()) continue;
      if (best == nullptr || key(nic) < key(*best)) best = &nic;
    }
    if (best == nullptr) continue;
    ++load[best->name];
    worker.nic = best->name;
    worker.nic_node = best->node;
  }
}

std::string Reason(const HostTopology& host, const WorkerPlace& worker) {
  std::string why;
  if (worker.home < 0) {
    why = "where its memory is, nobody can tell";
  } else if (worker.node == worker.home) {
    why = "beside its memory";
  } else if (worker.node < 0) {
    why = fmt::format("no CPU of any node is free for memory of node {}", worker.home);
  } else {
    why = fmt::format("no CPU of node {} is free: distance {}", worker.home,
                      host.Distance(worker.node, worker.home));
  }
  if (worker.nic_node < 0) return why;
  if (worker.nic_node == worker.home) return why + ", its device too";
  return why + fmt::format("; its device is at distance {}: memory wins",
                           host.Distance(worker.nic_node, worker.home));
}

}  // namespace

uint32_t WorkerCount(const HostTopology& host, const UsableCpus& usable,
                     std::span<const int> memory_nodes, uint32_t asked) {
  if (asked > 0) return asked;
  std::set<int> near;  // nodes of CPUs
  for (const int node : memory_nodes) {
    uint64_t least = UINT64_MAX;
    int nearest = -1;
    for (const HostCpu& cpu : usable.cpus) {
      if (host.CpuDistance(cpu, node) >= least) continue;
      least = host.CpuDistance(cpu, node);
      nearest = cpu.node;
    }
    near.insert(nearest);
  }
  const auto cpus = std::count_if(
      usable.cpus.begin(), usable.cpus.end(),
      [&near](const HostCpu& cpu) { return near.empty() || near.contains(cpu.node); });
  const auto most =
      std::max(kMostByDefault, kMostANode * static_cast<uint32_t>(memory_nodes.size()));
  return std::clamp(static_cast<uint32_t>(cpus) / 2, 1U, most);
}

WorkerPlan PlanWorkers(const WorkerPlanInput& input) {
  WorkerPlan plan{.notes = input.usable.notes};
  std::vector<Home> homes = FindHomes(input);
  ShareOutWorkers(homes, input.workers);
  for (const Home& home : homes) CutSlices(input, home, plan.workers);
  ShareOutUnknown(input, plan.workers);
  if (input.host.one_node()) {
    // Any CPU is as near as any other: the kernel's choice, unless some must be kept free.
    if (input.usable.restricted) {
      plan.places_anything = true;
      CpuSet cpus;
      for (const HostCpu& cpu : input.usable.cpus) cpus.push_back(cpu.id);
      for (WorkerPlace& worker : plan.workers) worker.cpus = cpus;
      for (WorkerPlace& worker : plan.workers) worker.why = "one node; kept off other CPUs";
    }
    return plan;
  }
  plan.places_anything = true;
  ChooseNics(input, plan.workers);
  CpuChoice choice(input.host, input.usable.cpus);
  for (WorkerPlace& worker : plan.workers) {
    const HostCpu cpu = choice.Take(worker.home, worker.nic_node);
    worker.cpus = {cpu.id};
    worker.node = cpu.node;
    worker.why = Reason(input.host, worker);
  }
  if (input.workers > input.usable.cpus.size()) {
    plan.notes.push_back(
        fmt::format("{} workers share {} CPUs", input.workers, input.usable.cpus.size()));
  }
  return plan;
}

}  // namespace ramferry
