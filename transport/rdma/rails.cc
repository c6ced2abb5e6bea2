#include "transport/rdma/rails.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "base/local_interface.h"
#include "fmt/format.h"
#include "transport/rdma/check.h"

namespace ramferry::rdma {
namespace {

constexpr int kLocal = 10;         // ACPI SLIT
constexpr uint64_t kSamples = 16;  // pages looked at for each share

constexpr const char* kDevices = "/sys/class/infiniband";

// The network interfaces of an RDMA device.
std::vector<std::string> InterfacesUnder(const std::filesystem::path& device) {
  std::vector<std::string> names;
  if (std::string parent; std::ifstream(device / "parent") >> parent) names.push_back(parent);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(device / "device" / "net", error)) {
    names.push_back(entry.path().filename());
  }
  return names;
}

// The node that a device on a bus says it is at; a virtio device has it from the one it is part of.
NumaNode NodeOnBus(const std::filesystem::path& device) {
  for (const char* file : {"numa_node", "../numa_node"}) {
    int node = -1;
    if (std::ifstream(device / file) >> node && node >= 0) return node;
  }
  return std::nullopt;
}

// The node of the page at `offset`, if there is a page.
NumaNode NodeOfPage(const MappedRegion& region, uint64_t offset) {
  if (!region.can_pwrite()) return std::nullopt;  // cannot tell holes
  const off_t data = ::lseek(region.fd, static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0 || static_cast<uint64_t>(data) >= offset + MiB(1).value() ||
      static_cast<uint64_t>(data) >= region.description.size.value()) {
    return std::nullopt;
  }
  int node = -1;
  // Faults the page in for reading, where it is (get_mempolicy(2)).
  if (::syscall(SYS_get_mempolicy, &node, nullptr, 0, region.address + data,
                MPOL_F_NODE | MPOL_F_ADDR) != 0 ||
      node < 0) {
    return std::nullopt;
  }
  return node;
}

// RoCE has the addresses of its interfaces as GIDs; InfiniBand needs IPoIB to be found by address.
std::vector<std::string> AddressesOf(const RdmaDevice& device) {
  std::vector<std::string> addresses;
  bool infiniband = false;
  for (const RdmaPort& port : device.ports) {
    if (!port.active) continue;
    infiniband |= port.link_layer == "InfiniBand";
    for (const RdmaGid& gid : port.gids) {
      if (gid.kind != "RoCE v2" || gid.address.starts_with("fe80:")) continue;
      if (!gid.address.starts_with("127.") && gid.address != "::1") {
        addresses.push_back(gid.address);
      }
    }
  }
  if (infiniband) {
    for (const std::string& name : InterfacesUnder(std::filesystem::path(kDevices) / device.name)) {
      const std::vector<std::string> more = AddressesOfInterface(name);
      addresses.insert(addresses.end(), more.begin(), more.end());
    }
  }
  return addresses;
}

}  // namespace

int KernelNodeDistance(int from, int to) {
  std::ifstream file(fmt::format("/sys/devices/system/node/node{}/distance", from));
  int distance = kLocal;
  for (int node = 0; node <= to; ++node) {
    if (!(file >> distance)) return kLocal;
  }
  return distance;
}

std::vector<size_t> ChooseRails(std::span<const NumaNode> channels, std::span<const NumaNode> rails,
                                const NodeDistance& distance) {
  std::vector<size_t> chosen;
  std::vector<size_t> load(rails.size());
  for (const NumaNode& channel : channels) {
    size_t best = 0;
    int least = 0;
    for (size_t rail = 0; rail < rails.size(); ++rail) {
      const int away = channel && rails[rail] ? distance(*channel, *rails[rail]) : kLocal;
      if (rail == 0 || away < least || (away == least && load[rail] < load[best])) {
        best = rail;
        least = away;
      }
    }
    ++load[best];
    chosen.push_back(best);
  }
  return chosen;
}

std::vector<NumaNode> NodesOfShares(std::span<const MappedRegion> memory, size_t channels) {
  uint64_t total = 0;
  for (const MappedRegion& region : memory) total += region.description.size.value();
  std::vector<NumaNode> nodes;
  for (size_t channel = 0; channel < channels; ++channel) {
    std::map<int, size_t> votes;
    for (uint64_t sample = 0; sample < kSamples; ++sample) {
      uint64_t at = total * channel / channels + total / channels * sample / kSamples;
      at -= at % kPageBytes;
      for (const MappedRegion& region : memory) {
        if (at < region.description.size.value()) {
          if (const NumaNode node = NodeOfPage(region, at)) ++votes[*node];
          break;
        }
        at -= region.description.size.value();
      }
    }
    const auto most =
        std::max_element(votes.begin(), votes.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    nodes.push_back(most == votes.end() ? NumaNode() : most->first);
  }
  return nodes;
}

std::vector<std::string> RailAddresses(const RdmaNeeds& needs) {
  std::vector<std::string> first;
  std::vector<std::string> further;
  for (const RdmaDevice& device : ProbeRdma().devices) {
    if (!CheckDevice(device.limits, needs).ok()) continue;
    const std::vector<std::string> all = AddressesOf(device);
    if (all.empty()) continue;
    first.push_back(all.front());
    further.insert(further.end(), all.begin() + 1, all.end());
  }
  first.insert(first.end(), further.begin(), further.end());
  first.resize(std::min(first.size(), kMostOtherAddresses));
  return first;
}

Ways WaysOf(const ChannelOffer& offer) {
  const auto& others = offer.other_addresses;
  if (others.empty()) return {{offer.address}, ""};
  Ways ways;
  if (std::find(others.begin(), others.end(), offer.address) == others.end()) {
    ways.last_resort = offer.address;
  } else {
    ways.addresses.push_back(offer.address);
  }
  std::copy_if(others.begin(), others.end(), std::back_inserter(ways.addresses),
               [&](const std::string& other) { return other != offer.address; });
  return ways;
}

std::vector<std::string> DevicesTowards(std::span<const std::string> addresses) {
  std::set<std::string> interfaces;
  for (const std::string& address : addresses) interfaces.insert(InterfaceTowards(address));
  std::vector<std::string> devices;
  std::error_code error;
  for (const auto& device : std::filesystem::directory_iterator(kDevices, error)) {
    const std::vector<std::string> under = InterfacesUnder(device.path());
    if (std::any_of(under.begin(), under.end(),
                    [&](const std::string& name) { return interfaces.contains(name); })) {
      devices.push_back(device.path().filename());
    }
  }
  std::sort(devices.begin(), devices.end());
  return devices;
}

NumaNode NodeOfDevice(const char* name) {
  const std::filesystem::path device = std::filesystem::path(kDevices) / name;
  if (const NumaNode node = NodeOnBus(device / "device")) return node;
  for (const std::string& interface : InterfacesUnder(device)) {
    if (const NumaNode node =
            NodeOnBus(std::filesystem::path("/sys/class/net") / interface / "device")) {
      return node;
    }
  }
  return std::nullopt;
}

}  // namespace ramferry::rdma
