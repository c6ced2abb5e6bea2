// HostTopology from hwloc: the one file that knows it.
#include <hwloc.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "base/numa_memory.h"
#include "base/status.h"
#include "engine/placement/host_topology.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

struct TopologyDeleter {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using Hwloc = std::unique_ptr<hwloc_topology, TopologyDeleter>;

absl::StatusOr<Hwloc> New() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return ErrnoStatus(errno, "hwloc cannot start");
  Hwloc topology(raw);
  hwloc_topology_set_flags(raw, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
  return topology;
}

absl::Status Load(const Hwloc& topology) {
  if (hwloc_topology_load(topology.get()) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "hwloc cannot read the topology");
}

hwloc_obj_t Next(const Hwloc& topology, hwloc_obj_type_t type, hwloc_obj_t previous) {
  return hwloc_get_next_obj_by_type(topology.get(), type, previous);
}

// The node whose memory is nearest to a CPU: the one that the fewest other CPUs share, and of
// those the first. (Nodes without CPUs are near to nobody; a node of fast memory beside the usual
// one has a higher number.) -1: none, where a cpuset hides the nodes of its CPUs.
int NodeOfCpu(const Hwloc& topology, unsigned cpu) {
  int best = -1;
  int fewest = 0;
  for (hwloc_obj_t node = nullptr; (node = Next(topology, HWLOC_OBJ_NUMANODE, node)) != nullptr;) {
    if (!hwloc_bitmap_isset(node->cpuset, cpu)) continue;
    const int cpus = hwloc_bitmap_weight(node->cpuset);
    const int id = static_cast<int>(node->os_index);
    if (fewest == 0 || cpus < fewest || (cpus == fewest && id < best)) {
      fewest = cpus;
      best = id;
    }
  }
  return best;
}

void TakeNodes(const Hwloc& topology, HostTopology& host) {
  for (hwloc_obj_t node = nullptr; (node = Next(topology, HWLOC_OBJ_NUMANODE, node)) != nullptr;) {
    const uint64_t memory = node->attr->numanode.local_memory;
    host.nodes.push_back({.id = static_cast<int>(node->os_index),
                          .memory = ByteCount(memory),
                          .available = ByteCount(memory)});
  }
  std::sort(host.nodes.begin(), host.nodes.end(),
            [](const HostNode& a, const HostNode& b) { return a.id < b.id; });
}

void TakeCpus(const Hwloc& topology, HostTopology& host) {
  int cores = 0;
  for (hwloc_obj_t pu = nullptr; (pu = Next(topology, HWLOC_OBJ_PU, pu)) != nullptr;) {
    const hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(topology.get(), HWLOC_OBJ_CORE, pu);
    host.cpus.push_back({.id = static_cast<int>(pu->os_index),
                         .core = core != nullptr ? static_cast<int>(core->logical_index) : cores,
                         .node = NodeOfCpu(topology, pu->os_index)});
    ++cores;
  }
  std::sort(host.cpus.begin(), host.cpus.end(),
            [](const HostCpu& a, const HostCpu& b) { return a.id < b.id; });
  for (HostCpu& cpu : host.cpus) {
    cpu.sibling = static_cast<int>(std::count_if(
        host.cpus.begin(), host.cpus.end(),
        [&cpu](const HostCpu& other) { return other.core == cpu.core && other.id < cpu.id; }));
  }
}

void TakeNics(const Hwloc& topology, HostTopology& host) {
  for (hwloc_obj_t device = nullptr;
       (device = hwloc_get_next_osdev(topology.get(), device)) != nullptr;) {
    const auto type = device->attr->osdev.type;
    if (type != HWLOC_OBJ_OSDEV_NETWORK && type != HWLOC_OBJ_OSDEV_OPENFABRICS) continue;
    const hwloc_obj_t place = hwloc_get_non_io_ancestor_obj(topology.get(), device);
    HostNic nic{.name = device->name, .rdma = type == HWLOC_OBJ_OSDEV_OPENFABRICS};
    // Near to one node, or to none in particular.
    if (place != nullptr && hwloc_bitmap_weight(place->nodeset) == 1) {
      nic.node = hwloc_bitmap_first(place->nodeset);
    } else if (place != nullptr && !hwloc_bitmap_iszero(place->cpuset)) {
      const int first =
          NodeOfCpu(topology, static_cast<unsigned>(hwloc_bitmap_first(place->cpuset)));
      const int last = NodeOfCpu(topology, static_cast<unsigned>(hwloc_bitmap_last(place->cpuset)));
      if (first == last) nic.node = first;  // -1 where it is of none
    }
    host.nics.push_back(std::move(nic));
  }
}

void TakeDistances(const Hwloc& topology, HostTopology& host) {
  unsigned count = 1;
  hwloc_distances_s* found = nullptr;
  if (hwloc_distances_get_by_type(topology.get(), HWLOC_OBJ_NUMANODE, &count, &found,
                                  HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0) != 0 ||
      count == 0) {
    return;
  }
  const size_t nodes = host.nodes.size();
  host.distances.assign(nodes, std::vector<uint64_t>(nodes, 0));
  const auto index = [&host](const hwloc_obj_t object) -> size_t {
    const HostNode* const node = host.FindNode(static_cast<int>(object->os_index));
    return static_cast<size_t>(node - host.nodes.data());
  };
  for (unsigned from = 0; from < found->nbobjs; ++from) {
    for (unsigned to = 0; to < found->nbobjs; ++to) {
      host.distances[index(found->objs[from])][index(found->objs[to])] =
          found->values[from * found->nbobjs + to];
    }
  }
  // A matrix that leaves nodes out is of no use.
  if (found->nbobjs != nodes) host.distances.clear();
  hwloc_distances_release(topology.get(), found);
}

// The cgroup's cpuset; of an exported machine: that of the lstopo which exported it.
void TakeAllowed(const Hwloc& topology, HostTopology& host) {
  for (HostCpu& cpu : host.cpus) {
    cpu.allowed = hwloc_bitmap_isset(hwloc_topology_get_allowed_cpuset(topology.get()),
                                     static_cast<unsigned>(cpu.id)) != 0;
  }
  for (HostNode& node : host.nodes) {
    node.allowed = hwloc_bitmap_isset(hwloc_topology_get_allowed_nodeset(topology.get()),
                                      static_cast<unsigned>(node.id)) != 0;
  }
}

HostTopology FromHwloc(const Hwloc& topology) {
  HostTopology host;
  TakeNodes(topology, host);
  TakeCpus(topology, host);
  TakeAllowed(topology, host);
  TakeDistances(topology, host);
  TakeNics(topology, host);
  return host;
}

// hwloc knows no soft-RoCE and no bonds: devices without a place on a bus have that of the device
// under them, if they name one.
void TakeVirtualNics(HostTopology& host) {
  const std::filesystem::path root("/sys/class/infiniband");
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(root, error)) {
    const std::string name = entry.path().filename();
    if (std::any_of(host.nics.begin(), host.nics.end(),
                    [&name](const HostNic& nic) { return nic.name == name; })) {
      continue;
    }
    std::string parent;
    std::ifstream(entry.path() / "parent") >> parent;
    const auto under = std::find_if(host.nics.begin(), host.nics.end(),
                                    [&parent](const HostNic& nic) { return nic.name == parent; });
    host.nics.push_back(
        {.name = name, .node = under == host.nics.end() ? -1 : under->node, .rdma = true});
  }
}

uint64_t ReadNumber(const std::filesystem::path& path) {
  uint64_t number = 0;
  std::ifstream(path) >> number;
  return number;
}

// "Node 0 MemFree:  123 kB": what is free, and the page cache and slabs that would be given back.
ByteCount AvailableIn(const std::filesystem::path& node) {
  std::ifstream file(node / "meminfo");
  std::string line;
  uint64_t kibibytes = 0;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string word;
    std::string name;
    std::string number;
    uint64_t value = 0;
    if (!(words >> word >> number >> name >> value)) continue;
    if (name == "MemFree:" || name == "Active(file):" || name == "Inactive(file):" ||
        name == "SReclaimable:") {
      kibibytes += value;
    }
  }
  return KiB(kibibytes);
}

void TakeFreeMemory(HostTopology& host) {
  for (HostNode& node : host.nodes) {
    const std::filesystem::path path(fmt::format("/sys/devices/system/node/node{}", node.id));
    if (const ByteCount available = AvailableIn(path); available.value() != 0) {
      std::ifstream zoneinfo("/proc/zoneinfo");
      node.available = available - std::min(available, ReserveOf(zoneinfo, node.id));
    }
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(path / "hugepages", error)) {
      const std::string name = entry.path().filename();  // hugepages-2048kB
      const size_t digits = name.find('-') + 1;
      node.free_huge_pages[std::strtoull(name.c_str() + digits, nullptr, 10) << 10] =
          ReadNumber(entry.path() / "free_hugepages");
    }
  }
}

}  // namespace

ByteCount ReserveOf(std::istream& zoneinfo, int node) {
  // "Node 0, zone Normal", and below it among others "low 1234", in pages.
  uint64_t pages = 0;
  bool of_node = false;
  for (std::string line; std::getline(zoneinfo, line);) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "Node") {
      int number = -1;
      of_node = words >> number && number == node;
    } else if (uint64_t count = 0; of_node && word == "low" && words >> count) {
      pages += count;
    }
  }
  return ByteCount(pages * kPageBytes);
}

absl::StatusOr<HostTopology> ReadHostTopology() {
  ASSIGN_OR_RETURN(const Hwloc topology, New());
  RETURN_IF_ERROR(Load(topology));
  HostTopology host = FromHwloc(topology);
  const CpuSet affinity = AffinityOf(0);
  for (HostCpu& cpu : host.cpus) {
    cpu.allowed = cpu.allowed && Contains(affinity, cpu.id);
  }
  TakeVirtualNics(host);
  TakeFreeMemory(host);
  std::string isolated;
  std::getline(std::ifstream("/sys/devices/system/cpu/isolated"), isolated);
  if (auto cpus = ParseCpuSet(isolated); cpus.ok()) host.isolated = *std::move(cpus);
  return host;
}

absl::StatusOr<HostTopology> TopologyFromSynthetic(const std::string& description) {
  ASSIGN_OR_RETURN(const Hwloc topology, New());
  if (hwloc_topology_set_synthetic(topology.get(), description.c_str()) != 0) {
    return absl::InvalidArgumentError("hwloc does not understand '" + description + "'");
  }
  RETURN_IF_ERROR(Load(topology));
  return FromHwloc(topology);
}

absl::StatusOr<HostTopology> TopologyFromXml(const std::string& path) {
  ASSIGN_OR_RETURN(const Hwloc topology, New());
  if (hwloc_topology_set_xml(topology.get(), path.c_str()) != 0) {
    return ErrnoStatus(errno, "hwloc cannot read the topology in " + path);
  }
  RETURN_IF_ERROR(Load(topology));
  return FromHwloc(topology);
}

}  // namespace ramferry
