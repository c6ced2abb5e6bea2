#include "engine/placement/landing_plan.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <tuple>

#include "base/numa_memory.h"
#include "base/status.h"
#include "engine/placement/cpu_choice.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace ramferry {
namespace {

std::string SizeText(uint64_t bytes) {
  if (bytes < GiB(1).value()) return fmt::format("{} MiB", bytes >> 20);
  return fmt::format("{:.1f} GiB",
                     static_cast<double>(bytes) / static_cast<double>(GiB(1).value()));
}

// What the regions of one guest node need.
struct GuestNode {
  int id = -1;
  std::vector<size_t> regions;
  uint64_t bytes = 0;
  uint64_t populated = 0;
  uint64_t huge_page_size = 0;  // 0: ordinary pages
};

std::vector<GuestNode> GuestNodes(std::span<const LandingRegion> regions) {
  std::map<int, GuestNode> nodes;
  for (size_t i = 0; i < regions.size(); ++i) {
    GuestNode& node = nodes[regions[i].guest_node];
    node.id = regions[i].guest_node;
    node.regions.push_back(i);
    node.bytes += regions[i].size;
    node.populated += regions[i].populated;
    if (regions[i].backing_page_size > kPageBytes)
      node.huge_page_size = regions[i].backing_page_size;
  }
  std::vector<GuestNode> sorted;
  sorted.reserve(nodes.size());
  for (auto& [id, node] : nodes) sorted.push_back(std::move(node));
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const GuestNode& a, const GuestNode& b) { return a.bytes > b.bytes; });
  return sorted;
}

class Planner {
 public:
  explicit Planner(const LandingPlanInput& input) : input_(input) {
    plan_.notes = input.usable.notes;
    plan_.regions.resize(input.regions.size());
    plan_.channels.resize(input.channels);
  }

  LandingPlan Make() {
    const std::vector<GuestNode> nodes = GuestNodes(input_.regions);
    CheckMap(nodes);
    for (const GuestNode& node : nodes) Place(node);
    PlaceChannels();
    return std::move(plan_);
  }

 private:
  [[nodiscard]] const HostTopology& host() const { return input_.host; }

  // The guest node's name in --numa-map: a guest without nodes has one, 0.
  static int MapKey(const GuestNode& node) { return std::max(node.id, 0); }

  void CheckMap(const std::vector<GuestNode>& guest_nodes) {
    std::set<int> known;
    for (const GuestNode& node : guest_nodes) known.insert(MapKey(node));
    for (const auto& [guest, to] : input_.map) {
      if (known.count(guest) == 0) {
        plan_.refusals.push_back(fmt::format(
            "--numa-map {}:{}: the guest has no memory on a node {}: its nodes are {}; name these",
            guest, to, guest, fmt::join(known, ", ")));
      }
    }
    for (std::string& wrong : WrongHostNodes(host(), input_.map)) {
      plan_.refusals.push_back(std::move(wrong));
    }
  }

  // What other nodes of the guest leave of a host node: if all grow to their size, or by what they
  // use now.
  enum class Count { kSize, kPopulated };
  [[nodiscard]] uint64_t Free(const HostNode& node, const GuestNode& guest,
                              Count count = Count::kSize) const {
    uint64_t free = node.available.value();
    if (guest.huge_page_size != 0) {
      const auto pages = node.free_huge_pages.find(guest.huge_page_size);
      free = pages == node.free_huge_pages.end() ? 0 : pages->second * guest.huge_page_size;
    }
    const auto promised = promised_.find(node.id);
    if (promised == promised_.end()) return free;
    const Promised& taken = promised->second;
    return free - std::min(free, count == Count::kSize ? taken.size : taken.populated);
  }

  // The one node that all pinned vCPUs of the guest node are on.
  [[nodiscard]] std::optional<int> NodeOfVcpus(const GuestNode& guest) const {
    std::set<int> nodes;
    for (const VcpuPlace& vcpu : input_.vcpus) {
      if (guest.id >= 0 && vcpu.guest_node != guest.id) continue;
      for (const int cpu : vcpu.cpus) {
        const HostCpu* const known = host().FindCpu(cpu);
        if (known != nullptr) nodes.insert(known->node);
      }
    }
    if (nodes.size() != 1 || *nodes.begin() < 0) return std::nullopt;
    return *nodes.begin();
  }

  [[nodiscard]] int Best(const GuestNode& guest) const {
    const auto key = [&](const HostNode& node) {
      uint64_t away = 0;
      for (const int other : used_) {
        away += host().Distance(other, node.id) + host().Distance(node.id, other);
      }
      const bool no_cpus = std::none_of(host().cpus.begin(), host().cpus.end(),
                                        [&](const HostCpu& cpu) { return cpu.node == node.id; });
      return std::tuple(Free(node, guest) < guest.bytes, no_cpus, used_.count(node.id), away,
                        node.id != guest.id, node.id);
    };
    const HostNode* best = nullptr;
    for (const HostNode& node : host().nodes) {
      if (!node.allowed || node.memory.value() == 0) continue;
      if (best == nullptr || key(node) < key(*best)) best = &node;
    }
    return best == nullptr ? -1 : best->id;
  }

  void Place(const GuestNode& guest) {
    const LandingRegion& first = input_.regions[guest.regions.front()];
    RegionLanding landing;
    bool by_map = false;
    if (const auto mapped = input_.map.find(MapKey(guest)); mapped != input_.map.end()) {
      landing = {.node = mapped->second, .bind = true, .why = "--numa-map"};
      by_map = true;
    } else if (host().one_node()) {
      return;
    } else if (first.has_policy) {
      landing = {.node = first.policy_node, .why = "the policy its hypervisor was started with"};
    } else if (const auto node = NodeOfVcpus(guest)) {
      landing = {.node = *node, .bind = true, .why = "its vCPUs may run there only"};
    } else if (guest.id >= 0) {
      landing = {.node = Best(guest), .bind = true, .why = "has room, and is its own"};
    }
    const HostNode* const node = host().FindNode(landing.node);
    if (landing.node >= 0 && node != nullptr) {
      CheckRoom(guest, *node, by_map);
      promised_[node->id].size += guest.bytes;
      promised_[node->id].populated += guest.populated;
      used_.insert(node->id);
    }
    for (const size_t region : guest.regions) plan_.regions[region] = landing;
  }

  // Refused is what a person asked for in so many words and cannot be; the rest is told.
  void CheckRoom(const GuestNode& guest, const HostNode& node, bool by_map) {
    const std::string what =
        guest.id < 0 ? "the guest" : fmt::format("node {} of the guest", guest.id);
    const char* const kind = guest.huge_page_size != 0 ? "of such huge pages " : "";
    const uint64_t now = Free(node, guest, Count::kPopulated);
    const uint64_t later = Free(node, guest);
    if (by_map && now < guest.populated) {
      plan_.refusals.push_back(
          fmt::format("--numa-map: {} uses {}, node {} here has {} {}free: free some, or map it to "
                      "another node",
                      what, SizeText(guest.populated), node.id, SizeText(now), kind));
    } else if (later < guest.bytes) {
      plan_.notes.push_back(
          fmt::format("{} may grow to {}, node {} has {} {}free: what does not fit comes from "
                      "other nodes",
                      what, SizeText(guest.bytes), node.id, SizeText(later), kind));
    }
  }

  // Threads that receive run beside the memory that they fill.
  void PlaceChannels() {
    CpuChoice choice(host(), input_.usable.cpus);
    CpuSet all;
    for (const HostCpu& cpu : input_.usable.cpus) all.push_back(cpu.id);
    const bool known = input_.channel_regions.size() == plan_.channels.size();
    for (size_t i = 0; i < plan_.channels.size(); ++i) {
      ChannelLanding& channel = plan_.channels[i];
      const uint32_t region = known ? input_.channel_regions[i] : UINT32_MAX;
      if (region < plan_.regions.size()) channel.node = plan_.regions[region].node;
      if (host().one_node() || channel.node < 0) {
        if (input_.usable.restricted) channel.cpus = all;
        continue;
      }
      channel.cpus = {choice.Take(channel.node, -1).id};
    }
  }

  struct Promised {  // bytes
    uint64_t size = 0;
    uint64_t populated = 0;
  };

  const LandingPlanInput& input_;
  LandingPlan plan_;
  std::map<int, Promised> promised_;  // by host node
  std::multiset<int> used_;           // host nodes
};

}  // namespace

absl::StatusOr<NumaMap> ParseNumaMap(const std::string& text) {
  NumaMap map;
  const char* at = text.data();
  const char* const end = at + text.size();
  // A node number and the `after` that follows it, or the end where `after` is a comma.
  const auto take = [&](char after) {
    int node = -1;
    const auto [next, error] = std::from_chars(at, end, node);
    if (error != std::errc() || node < 0 || node >= kMaxNodes) return -1;
    at = next;
    if (at == end) return after == ',' ? node : -1;
    return *at++ == after && at != end ? node : -1;
  };
  while (at != end) {
    const int guest = take(':');
    const int host = guest < 0 ? -1 : take(',');
    if (host < 0) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is no NUMA map: write guest node:host node, as in 0:1,1:0", text));
    }
    if (!map.emplace(guest, host).second) {
      return absl::InvalidArgumentError(
          fmt::format("NUMA map '{}' names guest node {} twice", text, guest));
    }
  }
  return map;
}

std::vector<std::string> WrongHostNodes(const HostTopology& host, const NumaMap& map) {
  std::vector<int> usable;
  for (const HostNode& node : host.nodes) {
    if (node.allowed && node.memory.value() != 0) usable.push_back(node.id);
  }
  std::vector<std::string> wrong;
  for (const auto& [guest, to] : map) {
    const HostNode* const node = host.FindNode(to);
    if (node == nullptr || node->memory.value() == 0) {
      wrong.push_back(
          fmt::format("--numa-map {}:{}: the destination has no memory node {}, only {}", guest, to,
                      to, fmt::join(usable, ", ")));
    } else if (!node->allowed) {
      wrong.push_back(
          fmt::format("--numa-map {}:{}: ramferry may not use memory of node {} (its cgroup's "
                      "cpuset.mems), only of {}",
                      guest, to, to, fmt::join(usable, ", ")));
    }
  }
  return wrong;
}

LandingPlan PlanLanding(const LandingPlanInput& input) {
  return Planner(input).Make();
}

}  // namespace ramferry
