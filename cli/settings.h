// The configuration: one TOML file, the same for all commands, every key with a default.
//
// `ramferry config` prints it with the values in force; flags of a command override it. The list of
// keys (settings.cc) is the one place that knows names, defaults and help.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/landing_placement.h"
#include "engine/options.h"

namespace ramferry {

inline constexpr const char* kDefaultConfig = "/etc/ramferry/ramferry.toml";
inline constexpr uint16_t kDefaultPort = 7711;

enum class DataEncryption {
  kAuto,  // unless the peer is this machine
  kOn,
  kOff,
};

struct Settings {
  std::string state_dir = "/var/lib/ramferry";
  std::string cpus;

  std::string ca = "/etc/ramferry/ca.pem";
  std::string certificate = "/etc/ramferry/host.pem";
  std::string key = "/etc/ramferry/host-key.pem";
  std::string revocation_list;

  std::string data_encryption = "auto";
  std::string transport = "auto";
  int64_t pin_budget_mib = 0;
  std::string rdma_address;
  int64_t rdma_traffic_class = -1;
  int64_t rdma_service_level = -1;

  std::string dpdk_device;
  std::string dpdk_address;
  std::string dpdk_gateway;
  int64_t dpdk_vlan = 0;
  int64_t dpdk_mtu = 1500;
  std::string dpdk_cpus;
  std::string dpdk_hugepages = "auto";
  int64_t dpdk_memory_mib = 128;

  std::string listen = "::";
  int64_t port = kDefaultPort;
  int64_t page_port = 0;
  std::vector<std::string> guests;
  std::string qmp;
  bool xen = false;
  std::vector<std::string> allow;
  int64_t max_migrations = 8;
  std::string runtime_dir = "/run/ramferry";
  std::string numa_map;

  std::vector<std::string> send_to;
  int64_t downtime_ms = 300;
  int64_t max_rounds = 30;
  std::string if_not_converging = "give-up";
  int64_t workers = 0;
  int64_t bandwidth_mib = 0;
  int64_t least_bandwidth_mib = 0;
  bool verify = false;
  int64_t answer_s = 30;
  int64_t settle_s = 30;

  // Both of checked settings.
  [[nodiscard]] MigrationOptions migration_options() const;
  [[nodiscard]] LandingWishes landing_wishes() const;
  [[nodiscard]] DataEncryption encryption() const;
};

// Reads a TOML text over the defaults. InvalidArgument names the line or key, and what is allowed.
[[nodiscard]] absl::StatusOr<Settings> ParseSettings(std::string_view text,
                                                     const std::string& origin);
// `path` empty: kDefaultConfig if it exists, else the defaults.
[[nodiscard]] absl::StatusOr<Settings> LoadSettings(const std::string& path);
// Ranges and words, also of what came from flags.
[[nodiscard]] absl::Status CheckSettings(const Settings& settings);
// The file that would give these settings, with a comment for every key.
[[nodiscard]] std::string FormatSettings(const Settings& settings);

}  // namespace ramferry
