#include "cli/settings.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <variant>

#include "base/status.h"
#include "base/text_file.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "toml++/toml.h"

namespace ramferry {
namespace {

using StringList = std::vector<std::string>;
using Field = std::variant<std::string Settings::*, int64_t Settings::*, bool Settings::*,
                           StringList Settings::*>;

struct Key {
  const char* section;  // "" for the top
  const char* name;
  Field field;
  const char* help;
  int64_t least = 0;
  int64_t most = 0;
  StringList words = {};  // allowed values of a string; empty: any
};

const std::vector<Key>& Keys() {
  static const std::vector<Key> keys = {
      {"", "state_dir", &Settings::state_dir,
       "The journal: what a killed ramferry must find again. On a disk, not on tmpfs."},
      {"", "cpus", &Settings::cpus,
       "CPUs for Ramferry's threads that move memory, as in \"0-3,8\"; empty: by the NUMA rules."},
      {"identity", "ca", &Settings::ca, "Certificate of the authority that vouches for all hosts."},
      {"identity", "certificate", &Settings::certificate, "This host's certificate."},
      {"identity", "key", &Settings::key, "This host's private key."},
      {"identity", "revocation_list", &Settings::revocation_list,
       "PEM file of the authority's revocation lists, read again for every connection; \"\": "
       "none."},
      {"data",
       "encryption",
       &Settings::data_encryption,
       "Guest memory on the wire: auto (encrypted unless the peer is this machine), on, off.",
       0,
       0,
       {"auto", "on", "off"}},
      {"data",
       "transport",
       &Settings::transport,
       "What carries guest memory: auto (RDMA where both hosts can, then DPDK where it is set up, "
       "then TCP), rdma, dpdk, tcp.",
       0,
       0,
       {"auto", "rdma", "dpdk", "tcp"}},
      {"data", "pin_budget_mib", &Settings::pin_budget_mib,
       "RDMA: guest memory that may be pinned on this host at a time, in MiB; 0: all of it.", 0,
       int64_t{1} << 30},
      {"data", "rdma_address", &Settings::rdma_address,
       "RDMA: this host's address to use, which decides device, port and GID (IPv4 or IPv6); "
       "empty: "
       "by the way to the other host, and all devices."},
      {"data", "rdma_traffic_class", &Settings::rdma_traffic_class,
       "RoCE: traffic class (DSCP and ECN) of this host's packets; -1: the system's.", -1, 255},
      {"data", "rdma_service_level", &Settings::rdma_service_level,
       "RDMA: service level of this host's packets (RoCE: VLAN priority); -1: the system's.", -1,
       15},
      {"dpdk", "device", &Settings::dpdk_device,
       "Port for guest memory: a PCI address, a network interface, or a virtual device as --vdev "
       "of "
       "DPDK; empty: no DPDK."},
      {"dpdk", "address", &Settings::dpdk_address,
       "This port's own IPv4 address with its prefix, as in 192.0.2.7/24; not one of the "
       "kernel's."},
      {"dpdk", "gateway", &Settings::dpdk_gateway,
       "IPv4 address of the way to other networks; empty: none is reached."},
      {"dpdk", "vlan", &Settings::dpdk_vlan, "VLAN tag of this port's frames; 0: none.", 0, 4094},
      {"dpdk", "mtu", &Settings::dpdk_mtu, "Largest packet; the network must carry it.", 576, 9000},
      {"dpdk", "cpus", &Settings::dpdk_cpus,
       "CPUs for the thread that polls the port, as in \"3\"; empty: those near the device."},
      {"dpdk",
       "hugepages",
       &Settings::dpdk_hugepages,
       "Buffers in hugepages: auto (for a PCI device, where there are enough), on, off.",
       0,
       0,
       {"auto", "on", "off"}},
      {"dpdk", "memory_mib", &Settings::dpdk_memory_mib, "Memory for the port's buffers, in MiB.",
       64, 65536},
      {"receive", "listen", &Settings::listen, "Address to listen on; \"::\" is every one."},
      {"receive", "port", &Settings::port, "Control port (0: any free one).", 0, 65535},
      {"receive", "page_port", &Settings::page_port,
       "Port for guest memory; 0: any free one, told to the source.", 0, 65535},
      {"receive", "guests", &Settings::guests,
       "Guest definitions (TOML files): the QEMUs that may be started for guests that come."},
      {"receive", "qmp", &Settings::qmp,
       "Instead: the QMP socket of one QEMU that was started with -incoming defer."},
      {"receive", "xen", &Settings::xen,
       "Take Xen domains, in a dom0: the source says what disks and networks they are given."},
      {"receive", "allow", &Settings::allow,
       "Certificate names of the hosts that may send guests; empty: every host of the authority."},
      {"receive", "max_migrations", &Settings::max_migrations, "Migrations at a time.", 1, 64},
      {"receive", "runtime_dir", &Settings::runtime_dir,
       "QMP sockets and logs of the QEMUs that are started here."},
      {"receive", "numa_map", &Settings::numa_map,
       "Guest NUMA nodes to nodes of this host, as in \"0:1,1:0\"; empty: by the NUMA rules."},
      {"migrate", "allow", &Settings::send_to,
       "Certificate names of the hosts that guests may be sent to; empty: every host of the "
       "authority."},
      {"migrate", "downtime_ms", &Settings::downtime_ms,
       "The guest is stopped when its predicted downtime is at most this.", 1, 3600000},
      {"migrate", "max_rounds", &Settings::max_rounds,
       "Pre-copy rounds before if_not_converging decides.", 1, 10000},
      {"migrate",
       "if_not_converging",
       &Settings::if_not_converging,
       "When the target cannot be met: give-up (the guest stays where it is), throttle (CPU time "
       "is "
       "taken from it until its pages can be sent as fast as it writes them), wait (until it "
       "writes "
       "less), or stop (it is stopped for longer).",
       0,
       0,
       {"give-up", "throttle", "wait", "stop"}},
      {"migrate", "workers", &Settings::workers,
       "Threads that send, each with its own connection; 0: half of the CPUs, at most 8.", 0, 64},
      {"migrate", "bandwidth_mib", &Settings::bandwidth_mib,
       "Limit in MiB/s while the guest runs; 0: none.", 0, 1 << 20},
      {"migrate", "least_bandwidth_mib", &Settings::least_bandwidth_mib,
       "The first round goes at so many MiB/s, later ones as fast as the guest writes and a little "
       "faster, up to bandwidth_mib; 0: every round goes at bandwidth_mib.",
       0, 1 << 20},
      {"migrate", "verify", &Settings::verify,
       "Compare all memory while the guest is stopped (adds to the downtime)."},
      {"migrate", "answer_s", &Settings::answer_s,
       "Seconds the other host may take over an answer.", 1, 3600},
      {"migrate", "settle_s", &Settings::settle_s,
       "Seconds to go on asking when the answer to the ownership message was lost.", 0, 86400},
  };
  return keys;
}

NotConverging NotConvergingNamed(const std::string& name) {
  if (name == "throttle") return NotConverging::kThrottle;
  if (name == "wait") return NotConverging::kWait;
  return name == "stop" ? NotConverging::kStopAnyway : NotConverging::kGiveUp;
}

// For benchmarks of what each is worth (bench/policy): RAMFERRY_WITHOUT=skip,hold,instant leaves
// out what it names. Nobody else has a reason to.
Mechanisms MechanismsInForce() {
  const char* without = std::getenv("RAMFERRY_WITHOUT");
  const std::string_view names = without == nullptr ? "" : without;
  const auto used = [names](std::string_view name) {
    return names.find(name) == std::string_view::npos;
  };
  return {.skip = used("skip"), .hold = used("hold"), .instant = used("instant")};
}

std::string FullName(const Key& key) {
  return *key.section == '\0' ? key.name : fmt::format("{}.{}", key.section, key.name);
}

absl::Status Assign(const Key& key, const toml::node& node, Settings& settings) {
  const auto wrong = [&key](const char* what) {
    return absl::InvalidArgumentError(fmt::format("{} must be {}", FullName(key), what));
  };
  if (const auto* field = std::get_if<std::string Settings::*>(&key.field)) {
    if (!node.is_string()) return wrong("a string");
    settings.*(*field) = node.as_string()->get();
  } else if (const auto* number = std::get_if<int64_t Settings::*>(&key.field)) {
    if (!node.is_integer()) return wrong("a whole number");
    settings.*(*number) = node.as_integer()->get();
  } else if (const auto* flag = std::get_if<bool Settings::*>(&key.field)) {
    if (!node.is_boolean()) return wrong("true or false");
    settings.*(*flag) = node.as_boolean()->get();
  } else {
    const auto list = std::get<StringList Settings::*>(key.field);
    if (!node.is_array()) return wrong("a list of strings");
    (settings.*list).clear();
    for (const toml::node& entry : *node.as_array()) {
      if (!entry.is_string()) return wrong("a list of strings");
      (settings.*list).push_back(entry.as_string()->get());
    }
  }
  return absl::OkStatus();
}

absl::Status AssignTable(const toml::table& table, const std::string& section, Settings& settings) {
  for (const auto& [table_key, node] : table) {
    const std::string name(table_key.str());
    if (section.empty() && node.is_table()) {
      RETURN_IF_ERROR(AssignTable(*node.as_table(), name, settings));
      continue;
    }
    const auto& keys = Keys();
    const auto key = std::find_if(keys.begin(), keys.end(), [&](const Key& candidate) {
      return section == candidate.section && name == candidate.name;
    });
    if (key == keys.end()) {
      return absl::InvalidArgumentError(
          fmt::format("unknown key '{}{}{}' (`ramferry config` prints all)", section,
                      section.empty() ? "" : ".", name));
    }
    RETURN_IF_ERROR(Assign(*key, node, settings));
  }
  return absl::OkStatus();
}

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    // TOML allows no control character but the tab in a string.
    if ((c >= 0 && c < ' ' && c != '\t') || c == '\x7f') {
      quoted += fmt::format("\\u{:04x}", static_cast<int>(c));
      continue;
    }
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace

absl::StatusOr<Settings> ParseSettings(std::string_view text, const std::string& origin) {
  Settings settings;
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    return absl::InvalidArgumentError(fmt::format(
        "{} line {}: {}", origin, error.source().begin.line, std::string(error.description())));
  }
  if (absl::Status status = AssignTable(table, "", settings); !status.ok()) {
    return Annotate(status, origin);
  }
  if (absl::Status status = CheckSettings(settings); !status.ok()) return Annotate(status, origin);
  return settings;
}

absl::StatusOr<Settings> LoadSettings(const std::string& path) {
  const std::string file = path.empty() ? kDefaultConfig : path;
  const auto text = ReadTextFile(file, "the configuration");
  if (path.empty() && absl::IsNotFound(text.status())) return Settings{};
  RETURN_IF_ERROR(text.status());
  return ParseSettings(*text, file);
}

namespace {

absl::Status CheckAddresses(const Settings& settings) {
  const auto is = [](int family, const std::string& text) {
    in6_addr ignored;
    return ::inet_pton(family, text.c_str(), &ignored) == 1;
  };
  if (const std::string& address = settings.rdma_address;
      !address.empty() && !is(AF_INET, address) && !is(AF_INET6, address)) {
    return absl::InvalidArgumentError(fmt::format(
        "data.rdma_address is '{}': it must be a numeric address of this host", address));
  }
  if (const std::string& address = settings.dpdk_address; !address.empty()) {
    const size_t slash = std::min(address.find('/'), address.size());
    int bits = 0;
    const char* const end = address.data() + address.size();
    const auto [after, error] =
        std::from_chars(std::min(address.data() + slash + 1, end), end, bits);
    if (!is(AF_INET, address.substr(0, slash)) || error != std::errc() || after != end ||
        bits < 1 || bits > 31) {
      return absl::InvalidArgumentError(fmt::format(
          "dpdk.address is '{}': it must be an IPv4 address with its prefix, as in 192.0.2.7/24",
          address));
    }
  }
  if (!settings.dpdk_gateway.empty() && !is(AF_INET, settings.dpdk_gateway)) {
    return absl::InvalidArgumentError(
        fmt::format("dpdk.gateway is '{}': it must be an IPv4 address", settings.dpdk_gateway));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSettings(const Settings& settings) {
  for (const Key& key : Keys()) {
    if (const auto* number = std::get_if<int64_t Settings::*>(&key.field)) {
      const int64_t value = settings.*(*number);
      if (value < key.least || value > key.most) {
        return absl::InvalidArgumentError(fmt::format("{} is {}: it must be between {} and {}",
                                                      FullName(key), value, key.least, key.most));
      }
    } else if (const auto* field = std::get_if<std::string Settings::*>(&key.field);
               field != nullptr && !key.words.empty()) {
      const std::string& value = settings.*(*field);
      if (std::find(key.words.begin(), key.words.end(), value) == key.words.end()) {
        return absl::InvalidArgumentError(fmt::format(
            "{} is '{}': it must be one of {}", FullName(key), value, fmt::join(key.words, ", ")));
      }
    } else if (const auto* list = std::get_if<StringList Settings::*>(&key.field);
               list != nullptr &&
               std::count((settings.*(*list)).begin(), (settings.*(*list)).end(), "") > 0) {
      return absl::InvalidArgumentError(
          fmt::format("{} has an entry that is empty: leave it out", FullName(key)));
    }
  }
  RETURN_IF_ERROR(ParseCpuSet(settings.cpus).status());
  RETURN_IF_ERROR(Annotate(ParseCpuSet(settings.dpdk_cpus).status(), "dpdk.cpus"));
  RETURN_IF_ERROR(CheckAddresses(settings));
  if (settings.dpdk_device.empty() != settings.dpdk_address.empty()) {
    return absl::InvalidArgumentError("dpdk.device and dpdk.address must be set both, or neither");
  }
  return ParseNumaMap(settings.numa_map).status();
}

std::string FormatSettings(const Settings& settings) {
  std::string text;
  std::string section;
  for (const Key& key : Keys()) {
    if (section != key.section) {
      section = key.section;
      text += fmt::format("\n[{}]\n", section);
    }
    text += fmt::format("# {}\n", key.help);
    std::string value;
    if (const auto* field = std::get_if<std::string Settings::*>(&key.field)) {
      value = Quoted(settings.*(*field));
    } else if (const auto* number = std::get_if<int64_t Settings::*>(&key.field)) {
      value = fmt::format("{}", settings.*(*number));
    } else if (const auto* flag = std::get_if<bool Settings::*>(&key.field)) {
      value = settings.*(*flag) ? "true" : "false";
    } else {
      StringList quoted;
      for (const std::string& entry : settings.*std::get<StringList Settings::*>(key.field)) {
        quoted.push_back(Quoted(entry));
      }
      value = fmt::format("[{}]", fmt::join(quoted, ", "));
    }
    text += fmt::format("{} = {}\n", key.name, value);
  }
  return text;
}

MigrationOptions Settings::migration_options() const {
  return {.downtime_target = std::chrono::milliseconds(downtime_ms),
          .max_rounds = static_cast<uint32_t>(max_rounds),
          .not_converging = NotConvergingNamed(if_not_converging),
          .workers = static_cast<uint32_t>(workers),
          .cpus = *ParseCpuSet(cpus),
          .bandwidth = MiB(static_cast<uint64_t>(bandwidth_mib)),
          .least_bandwidth = MiB(static_cast<uint64_t>(least_bandwidth_mib)),
          .mechanisms = MechanismsInForce(),
          .verify = verify,
          .answer_time = std::chrono::seconds(answer_s),
          .settle_time = std::chrono::seconds(settle_s)};
}

LandingWishes Settings::landing_wishes() const {
  return {.map = *ParseNumaMap(numa_map), .cpus = *ParseCpuSet(cpus)};
}

DataEncryption Settings::encryption() const {
  if (data_encryption == "on") return DataEncryption::kOn;
  return data_encryption == "off" ? DataEncryption::kOff : DataEncryption::kAuto;
}

}  // namespace ramferry
