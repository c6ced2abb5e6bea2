#include "cli/topology_view.h"

#include <algorithm>

#include "engine/placement/usable_cpus.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

std::string SizeText(uint64_t bytes) {
  const double mib = static_cast<double>(bytes) / static_cast<double>(MiB(1).value());
  return mib < 10240 ? fmt::format("{:.0f} MiB", mib) : fmt::format("{:.1f} GiB", mib / 1024);
}

CpuSet CpusOf(const HostTopology& host, int node) {
  CpuSet cpus;
  for (const HostCpu& cpu : host.cpus) {
    if (cpu.node == node) cpus.push_back(cpu.id);
  }
  return cpus;
}

std::string NicsAt(const HostTopology& host, int node) {
  std::vector<std::string> names;
  for (const HostNic& nic : host.nics) {
    if (nic.node == node) names.push_back(nic.name + (nic.rdma ? " (RDMA)" : ""));
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string NodeLine(const HostTopology& host, const HostNode& node) {
  const CpuSet cpus = CpusOf(host, node.id);
  std::string text =
      fmt::format("node {}: {}, {} of memory, {} available{}", node.id,
                  cpus.empty() ? "no CPUs" : fmt::format("CPUs {}", FormatCpuSet(cpus)),
                  SizeText(node.memory.value()), SizeText(node.available.value()),
                  node.allowed ? "" : " (not for this process)");
  if (!host.one_node()) {
    std::vector<uint64_t> distances;
    for (const HostNode& other : host.nodes) distances.push_back(host.Distance(node.id, other.id));
    text += fmt::format("; distances {}", fmt::join(distances, " "));
  }
  const std::string nics = NicsAt(host, node.id);
  return text + (nics.empty() ? "" : "; " + nics) + "\n";
}

std::string WorkerLine(size_t index, const WorkerPlace& worker) {
  std::string text = fmt::format("  worker {}: ", index);
  text += worker.cpus.empty() ? "any CPU" : fmt::format("CPU {}", FormatCpuSet(worker.cpus));
  if (worker.node >= 0) text += fmt::format(" (node {})", worker.node);
  text += fmt::format(", {} slices", worker.slices.size());
  if (worker.home >= 0)
    text += fmt::format(" with {} of node {}", SizeText(worker.bytes), worker.home);
  if (!worker.nic.empty()) text += ", " + worker.nic;
  return text + (worker.why.empty() ? "" : ": " + worker.why) + "\n";
}

}  // namespace

std::string TopologyView::UseOf(const HostCpu& cpu) const {
  if (guest) {
    for (size_t i = 0; i < guest->plan.workers.size(); ++i) {
      const CpuSet& cpus = guest->plan.workers[i].cpus;
      if (cpus.size() == 1 && cpus[0] == cpu.id) return fmt::format("worker {}", i);
    }
    if (Contains(PinnedToVcpus(host, guest->vcpus), cpu.id)) return "vCPUs";
  }
  if (!cpu.allowed) return "not allowed";
  return Contains(host.isolated, cpu.id) ? "isolated" : "";
}

uint64_t TopologyView::GuestBytesOn(int node) const {
  uint64_t bytes = 0;
  if (!guest) return bytes;
  for (const MemoryView& memory : guest->memory) {
    const auto found = memory.bytes_by_node.find(node);
    if (host.one_node()) {
      bytes += memory.populated;
    } else if (found != memory.bytes_by_node.end()) {
      bytes += found->second;
    }
  }
  return bytes;
}

std::string FormatTopology(const TopologyView& view) {
  const HostTopology& host = view.host;
  std::string text = fmt::format("host: {} NUMA node{}, {} CPUs\n", host.nodes.size(),
                                 host.nodes.size() == 1 ? "" : "s", host.cpus.size());
  for (const HostNode& node : host.nodes) text += NodeLine(host, node);
  if (const std::string nics = NicsAt(host, -1); !nics.empty()) {
    text += fmt::format("network devices of no particular node: {}\n", nics);
  }
  if (!host.isolated.empty())
    text += fmt::format("isolated CPUs: {}\n", FormatCpuSet(host.isolated));
  if (!view.guest) return text;
  const GuestView& guest = *view.guest;
  text += fmt::format("\nguest {}: {} vCPUs\n", guest.name, guest.vcpus.size());
  for (const MemoryView& memory : guest.memory) {
    text +=
        fmt::format("  memory {}{}: {} of {} used", memory.name,
                    memory.guest_node < 0 ? "" : fmt::format(" (guest node {})", memory.guest_node),
                    SizeText(memory.populated), SizeText(memory.size));
    for (const auto& [node, bytes] : memory.bytes_by_node) {
      text += fmt::format(", {} on node {}", SizeText(bytes), node);
    }
    text += "\n";
  }
  const CpuSet pinned = PinnedToVcpus(host, guest.vcpus);
  text += pinned.empty()
              ? "  its vCPUs are pinned to no CPUs of their own\n"
              : fmt::format("  its vCPUs have CPUs {} for themselves\n", FormatCpuSet(pinned));
  text += "\nto move it:\n";
  for (size_t i = 0; i < guest.plan.workers.size(); ++i)
    text += WorkerLine(i, guest.plan.workers[i]);
  for (const std::string& note : guest.plan.notes) text += "  note: " + note + "\n";
  return text;
}

std::string TopologyJson(const TopologyView& view) {
  using nlohmann::ordered_json;
  const HostTopology& host = view.host;
  ordered_json nodes = ordered_json::array();
  for (const HostNode& node : host.nodes) {
    ordered_json distances = ordered_json::object();
    for (const HostNode& other : host.nodes) {
      distances[std::to_string(other.id)] = host.Distance(node.id, other.id);
    }
    nodes.push_back({{"id", node.id},
                     {"cpus", FormatCpuSet(CpusOf(host, node.id))},
                     {"memory", node.memory.value()},
                     {"available", node.available.value()},
                     {"allowed", node.allowed},
                     {"distances", distances}});
  }
  ordered_json nics = ordered_json::array();
  for (const HostNic& nic : host.nics) {
    nics.push_back({{"name", nic.name}, {"node", nic.node}, {"rdma", nic.rdma}});
  }
  ordered_json object = {
      {"nodes", nodes}, {"nics", nics}, {"isolated", FormatCpuSet(host.isolated)}};
  if (view.guest) {
    ordered_json memory = ordered_json::array();
    for (const MemoryView& part : view.guest->memory) {
      ordered_json on_nodes = ordered_json::object();
      for (const auto& [node, bytes] : part.bytes_by_node) on_nodes[std::to_string(node)] = bytes;
      memory.push_back({{"name", part.name},
                        {"guest_node", part.guest_node},
                        {"size", part.size},
                        {"populated", part.populated},
                        {"bytes_by_node", on_nodes}});
    }
    ordered_json vcpus = ordered_json::array();
    for (const VcpuPlace& vcpu : view.guest->vcpus) {
      vcpus.push_back({{"guest_node", vcpu.guest_node}, {"cpus", FormatCpuSet(vcpu.cpus)}});
    }
    ordered_json workers = ordered_json::array();
    for (const WorkerPlace& worker : view.guest->plan.workers) {
      workers.push_back({{"cpus", FormatCpuSet(worker.cpus)},
                         {"node", worker.node},
                         {"memory_node", worker.home},
                         {"bytes", worker.bytes},
                         {"slices", worker.slices.size()},
                         {"nic", worker.nic},
                         {"nic_node", worker.nic_node},
                         {"why", worker.why}});
    }
    object["guest"] = {{"name", view.guest->name},
                       {"memory", memory},
                       {"vcpus", vcpus},
                       {"workers", workers},
                       {"notes", view.guest->plan.notes}};
  }
  return object.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace ramferry
