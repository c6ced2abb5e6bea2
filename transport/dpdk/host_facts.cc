#include "transport/dpdk/host_facts.h"

#include <fmt/format.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "base/status.h"
#include "base/unique_fd.h"

namespace ramferry::dpdk {
namespace {

namespace fs = std::filesystem;

std::string FirstLine(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The name of what a link points to; "" if there is none.
std::string Target(const fs::path& link) {
  std::error_code error;
  const fs::path target = fs::read_symlink(link, error);
  return error ? "" : target.filename().string();
}

fs::path PciPath(const std::string& address) {
  return fs::path("/sys/bus/pci/devices") / address;
}
fs::path InterfacePath(const std::string& name) {
  return fs::path("/sys/class/net") / name;
}

bool HasEntries(const fs::path& directory) {
  std::error_code error;
  return fs::directory_iterator(directory, error) != fs::directory_iterator() && !error;
}

// Drivers by which DPDK reaches a device: user space drivers, and those of NICs that DPDK and the
// kernel share.
bool ServesDpdk(const std::string& driver) {
  static const std::vector<std::string> kDrivers = {"vfio-pci",  "igb_uio",   "uio_pci_generic",
                                                    "mlx4_core", "mlx5_core", "mana"};
  return std::find(kDrivers.begin(), kDrivers.end(), driver) != kDrivers.end();
}

void AddRights(std::vector<HostFact>& facts, const DpdkOptions& options) {
  if (KindOf(options.device) != DeviceKind::kInterface) return;
  const bool good = HasCapability(CAP_NET_RAW) && HasCapability(CAP_NET_ADMIN);
  facts.push_back({"rights", good ? "CAP_NET_RAW and CAP_NET_ADMIN" : "not enough for raw packets",
                   good ? "" : "run as root, or with CAP_NET_RAW and CAP_NET_ADMIN"});
}

// Asked by ioctl: sysfs may be that of another network namespace.
struct Interface {
  int mtu = 0;  // 0: there is none of that name
  bool up = false;
  bool carrier = false;
};

Interface LookAt(const std::string& name) {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  name.copy(request.ifr_name, sizeof request.ifr_name - 1);
  Interface found;
  if (::ioctl(socket.get(), SIOCGIFMTU, &request) != 0) return found;
  found.mtu = request.ifr_mtu;
  if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) == 0) {
    found.up = (request.ifr_flags & IFF_UP) != 0;
    found.carrier = (request.ifr_flags & IFF_RUNNING) != 0;
  }
  return found;
}

void AddInterface(std::vector<HostFact>& facts, const DpdkOptions& options) {
  const Interface found = LookAt(options.device);
  if (found.mtu == 0) {
    facts.push_back({"interface", fmt::format("{} does not exist", options.device),
                     "see `ip link`, and set dpdk.device"});
    return;
  }
  facts.push_back(
      {"interface",
       fmt::format("{} is {}", options.device,
                   !found.up       ? "down"
                   : found.carrier ? "up"
                                   : "up, without a carrier"),  // a cable may come later
       found.up ? "" : fmt::format("ip link set {} up", options.device)});
  const bool fits = found.mtu >= static_cast<int>(options.mtu);
  facts.push_back(
      {"MTU", fmt::format("{} has {}, {} is asked for", options.device, found.mtu, options.mtu),
       fits ? ""
            : fmt::format("ip link set {} mtu {}, or set dpdk.mtu = {}", options.device,
                          options.mtu, found.mtu)});
}

void AddPci(std::vector<HostFact>& facts, const DpdkOptions& options) {
  std::error_code error;
  if (!fs::exists(PciPath(options.device), error)) {
    facts.push_back({"PCI device", fmt::format("{} does not exist", options.device),
                     "see `lspci -D`, and set dpdk.device"});
    return;
  }
  const std::string driver = Target(PciPath(options.device) / "driver");
  facts.push_back(
      {"driver", fmt::format("{} has {}", options.device, driver.empty() ? "none" : driver),
       ServesDpdk(driver) ? ""
                          : fmt::format("dpdk-devbind.py -b vfio-pci {} (the kernel then loses the "
                                        "device)",
                                        options.device)});
  if (driver == "vfio-pci") {
    const bool iommu = HasEntries("/sys/class/iommu");
    const bool without = FirstLine("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode") == "Y";
    facts.push_back({"IOMMU", iommu ? "on" : "off",
                     iommu || without ? ""
                                      : "switch it on in the firmware and boot with intel_iommu=on "
                                        "or amd_iommu=on"});
  }
}

}  // namespace

DeviceKind KindOf(const std::string& device) {
  if (device.starts_with("net_") || device.starts_with("eth_") ||
      device.find(',') != std::string::npos) {
    return DeviceKind::kVirtual;
  }
  const bool pci = device.find(':') != std::string::npos &&
                   std::all_of(device.begin(), device.end(), [](unsigned char c) {
                     return std::isxdigit(c) != 0 || c == ':' || c == '.';
                   });
  return pci ? DeviceKind::kPci : DeviceKind::kInterface;
}

bool HasCapability(int capability) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("CapEff:")) continue;
    return (std::strtoull(line.c_str() + 7, nullptr, 16) >> capability & 1) != 0;
  }
  return false;
}

uint64_t FreeHugepagesMib() {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/sys/kernel/mm/hugepages", error)) {
    const std::string name = entry.path().filename().string();  // hugepages-2048kB
    const uint64_t kib = std::strtoull(name.c_str() + sizeof "hugepages-" - 1, nullptr, 10);
    bytes += std::strtoull(FirstLine(entry.path() / "free_hugepages").c_str(), nullptr, 10) * kib;
  }
  return bytes >> 10;
}

bool UsesHugepages(const DpdkOptions& options) {
  if (options.hugepages != "auto") return options.hugepages == "on";
  return KindOf(options.device) == DeviceKind::kPci && FreeHugepagesMib() >= options.memory_mib;
}

CpuSet PollingCpus(const DpdkOptions& options) {
  const CpuSet allowed = AffinityOf(0);
  CpuSet wanted = options.cpus;
  if (wanted.empty()) {
    const fs::path device = KindOf(options.device) == DeviceKind::kPci
                                ? PciPath(options.device)
                                : InterfacePath(options.device) / "device";
    wanted = ParseCpuSet(FirstLine(device / "local_cpulist")).value_or(CpuSet());
  }
  CpuSet usable;
  std::set_intersection(wanted.begin(), wanted.end(), allowed.begin(), allowed.end(),
                        std::back_inserter(usable));
  return usable.empty() ? allowed : usable;
}

std::vector<HostFact> HostFacts(const DpdkOptions& options) {
  std::vector<HostFact> facts;
  const uint64_t free_mib = FreeHugepagesMib();
  const bool huge = UsesHugepages(options);
  facts.push_back({"hugepages",
                   fmt::format("{} MiB free, {}", free_mib, huge ? "used" : "not used"),
                   huge && free_mib < options.memory_mib
                       ? fmt::format("sysctl vm.nr_hugepages={}, or set dpdk.hugepages = \"off\"",
                                     options.memory_mib / 2)
                       : ""});
  if (KindOf(options.device) == DeviceKind::kPci) AddPci(facts, options);
  if (KindOf(options.device) == DeviceKind::kInterface) AddInterface(facts, options);
  AddRights(facts, options);
  facts.push_back({"polling CPUs", FormatCpuSet(PollingCpus(options)), ""});
  return facts;
}

absl::Status CheckDevice(const DpdkOptions& options) {
  for (const HostFact& fact : HostFacts(options)) {
    if (fact.fix.empty()) continue;
    return absl::FailedPreconditionError(
        fmt::format("DPDK port {}: {}: {}; {}", options.device, fact.what, fact.state, fact.fix));
  }
  return absl::OkStatus();
}

}  // namespace ramferry::dpdk
