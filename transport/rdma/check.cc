#include "transport/rdma/check.h"

#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "transport/rdma/pin_limit.h"
#include "transport/rdma/rails.h"
#include "transport/rdma/rdma_transport.h"

namespace ramferry::rdma {
namespace {

struct ContextDeleter {
  void operator()(ibv_context* context) const { ibv_close_device(context); }
};

// Speed of one lane in Gbit/s, by the bit that the port reports (InfiniBand specification, volume
// 1, PortInfo; libibverbs' ibv_port_attr has no names for them).
double LaneSpeed(unsigned speed) {
  switch (speed) {
    case 1:
      return 2.5;
    case 2:
      return 5;
    case 4:
    case 8:
      return 10;
    case 16:
      return 14;
    case 32:
      return 25;
    case 64:
      return 50;
    case 128:
      return 100;
    default:
      return 0;
  }
}

int Lanes(uint8_t width) {
  switch (width) {
    case 1:
      return 1;
    case 2:
      return 4;
    case 4:
      return 8;
    case 8:
      return 12;
    case 16:
      return 2;
    default:
      return 0;
  }
}

}  // namespace

std::string GidAddress(const ibv_gid& gid) {
  char text[INET6_ADDRSTRLEN] = "";
  const auto* address = reinterpret_cast<const in6_addr*>(gid.raw);
  if (IN6_IS_ADDR_V4MAPPED(address)) {
    ::inet_ntop(AF_INET, gid.raw + 12, text, sizeof text);
  } else {
    ::inet_ntop(AF_INET6, gid.raw, text, sizeof text);
  }
  return text;
}

const char* GidKind(uint32_t type) {
  const char* const kinds[] = {"InfiniBand", "RoCE v1", "RoCE v2"};
  return type <= 2 ? kinds[type] : "unknown";
}

namespace {

RdmaPort ProbePort(ibv_context* context, uint8_t number) {
  RdmaPort port;
  port.number = number;
  ibv_port_attr attributes{};
  if (ibv_query_port(context, number, &attributes) != 0) {
    port.state = "cannot be read";
    return port;
  }
  port.active = attributes.state == IBV_PORT_ACTIVE;
  port.state = ibv_port_state_str(attributes.state);
  port.link_layer = attributes.link_layer == IBV_LINK_LAYER_ETHERNET ? "Ethernet" : "InfiniBand";
  port.gigabits_per_second = LaneSpeed(attributes.active_speed) * Lanes(attributes.active_width);
  port.mtu = 128U << static_cast<unsigned>(attributes.active_mtu);
  port.largest_message = attributes.max_msg_sz;
  for (int i = 0; i < attributes.gid_tbl_len; ++i) {
    ibv_gid_entry entry{};
    if (ibv_query_gid_ex(context, number, static_cast<uint32_t>(i), &entry, 0) != 0) continue;
    RdmaGid gid;
    gid.index = entry.gid_index;
    gid.address = GidAddress(entry.gid);
    gid.kind = GidKind(entry.gid_type);
    char name[IF_NAMESIZE] = "";
    if (entry.ndev_ifindex != 0 && ::if_indextoname(entry.ndev_ifindex, name) != nullptr) {
      gid.interface = name;
    }
    port.gids.push_back(std::move(gid));
  }
  return port;
}

ByteCount FreeMemory() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    constexpr std::string_view kField = "MemAvailable:";
    if (line.starts_with(kField)) return KiB(std::stoull(line.substr(kField.size())));
  }
  return ByteCount(0);
}

void FindProblems(const RdmaDevice& device, std::vector<RdmaProblem>& problems) {
  for (const RdmaPort& port : device.ports) {
    const std::string name = fmt::format("{} port {}", device.name, port.number);
    if (!port.active) {
      problems.push_back({fmt::format("{} is {}", name, port.state),
                          port.link_layer == "Ethernet"
                              ? "set its network interface up (ip link set DEV up); check the cable"
                              : "check the cable, and that a subnet manager runs in the fabric"});
      continue;
    }
    if (port.gids.empty()) {
      problems.push_back({fmt::format("{} has no address (GID)", name),
                          "give its network interface an IP address"});
    }
    if (port.mtu < 4096) {
      problems.push_back(
          {fmt::format("{} sends packets of {} bytes only", name, port.mtu),
           port.link_layer == "Ethernet"
               ? "raise the MTU of its network to 4200 or more (ip link set DEV mtu 4200), on both "
                 "hosts and the switches between"
               : "raise the MTU in the subnet manager's partition"});
    }
  }
}

}  // namespace

RdmaReport ProbeRdma() {
  RdmaReport report;
  report.pin_limit = PinLimit();
  report.pin_headroom = FreeMemory();
  if (report.pin_limit) report.pin_headroom = std::min(report.pin_headroom, *report.pin_limit);
  int count = 0;
  ibv_device** const list = ibv_get_device_list(&count);
  for (int i = 0; list != nullptr && i < count; ++i) {
    RdmaDevice device;
    device.name = ibv_get_device_name(list[i]);
    device.numa_node = NodeOfDevice(device.name.c_str());
    std::unique_ptr<ibv_context, ContextDeleter> context(ibv_open_device(list[i]));
    ibv_device_attr_ex attributes{};
    if (!context || ibv_query_device_ex(context.get(), nullptr, &attributes) != 0) {
      report.problems.push_back(
          {fmt::format("{} cannot be opened", device.name),
           "run as root, or give the user access to /dev/infiniband/uverbs*"});
      report.devices.push_back(std::move(device));
      continue;
    }
    device.on_demand_paging = (attributes.odp_caps.general_caps & IBV_ODP_SUPPORT) != 0;
    device.limits = LimitsOf(device.name, attributes.orig_attr);
    device.most_requests = static_cast<uint32_t>(attributes.orig_attr.max_qp_wr);
    for (uint8_t number = 1; number <= attributes.orig_attr.phys_port_cnt; ++number) {
      device.ports.push_back(ProbePort(context.get(), number));
      report.usable = report.usable || device.ports.back().active;
    }
    FindProblems(device, report.problems);
    report.devices.push_back(std::move(device));
  }
  if (list != nullptr) ibv_free_device_list(list);
  if (report.devices.empty()) {
    report.problems.push_back(
        {"no RDMA device",
         "load the adapter's driver (rdma link shows devices); without an adapter, "
         "modprobe rdma_rxe; rdma link add rxe0 type rxe netdev DEV"});
  } else if (::access("/dev/infiniband/rdma_cm", R_OK | W_OK) != 0) {
    report.usable = false;
    report.problems.push_back({"no RDMA connection manager (/dev/infiniband/rdma_cm)",
                               "modprobe rdma_ucm, and run as root"});
  }
  return report;
}

namespace {

bool HasActivePort(const RdmaDevice& device) {
  return std::any_of(device.ports.begin(), device.ports.end(),
                     [](const RdmaPort& port) { return port.active; });
}

// "what: what to do about it".
RdmaProblem ProblemOf(const absl::Status& status) {
  const std::string text(status.message());
  const size_t colon = text.rfind(": ");
  return {text.substr(0, colon), text.substr(colon + 2)};
}

}  // namespace

absl::Status CheckDevices(const RdmaReport& report, const RdmaNeeds& needs) {
  absl::Status first;
  for (const RdmaDevice& device : report.devices) {
    if (!HasActivePort(device)) continue;
    const absl::Status status = CheckDevice(device.limits, needs);
    if (status.ok()) return status;
    first.Update(status);
  }
  return first;
}

std::vector<RdmaProblem> ProblemsFor(const RdmaReport& report, const RdmaNeeds& needs) {
  std::vector<RdmaProblem> problems;
  if (report.devices.empty()) return problems;
  const absl::Status pinning = CheckPinning(report.pin_limit, needs);
  if (!pinning.ok()) {
    problems.push_back(ProblemOf(pinning));
  } else if (report.pin_limit && needs.guest.value() == 0) {
    problems.push_back({fmt::format("only {} MiB may be pinned", report.pin_limit->value() >> 20),
                        "LimitMEMLOCK=infinity in the service (ulimit -l unlimited in a shell), or "
                        "a --pin-budget below it"});
  }
  for (const RdmaDevice& device : report.devices) {
    if (!HasActivePort(device)) continue;
    const absl::Status enough = CheckDevice(device.limits, needs);
    const uint64_t pieces = PiecesWithin(device.limits.most_registrations, needs.channels);
    if (!enough.ok()) {
      problems.push_back(ProblemOf(enough));
    } else if (needs.pieces > pieces) {
      problems.push_back(
          {fmt::format("{} has room for {} pieces of guest memory, and this guest has {}",
                       device.name, pieces, needs.pieces),
           "it can be moved, but pieces are dropped and registered again, which takes time; with "
           "another device (--rdma-address) they need not be"});
    }
  }
  return problems;
}

absl::Status RdmaUsable() {
  // `receive` forks to start QEMUs (hypervisor-glue/qemu/qemu_process.cc), which before Linux 5.12
  // could take registered memory away from its device. Does nothing on newer kernels.
  static const int fork_safe = ibv_fork_init();
  (void)fork_safe;
  const RdmaReport report = ProbeRdma();
  if (report.usable) return absl::OkStatus();
  std::string text = "RDMA cannot be used here";
  for (const RdmaProblem& problem : report.problems) {
    text += fmt::format("\n  {}: {}", problem.what, problem.fix);
  }
  return absl::FailedPreconditionError(text);
}

}  // namespace ramferry::rdma
