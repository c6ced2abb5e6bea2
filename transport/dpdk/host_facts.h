// What this host's kernel says about a device, for messages and for `ramferry check`. Reads sysfs;
// needs no DPDK.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "transport/dpdk/eal.h"

namespace ramferry::dpdk {

// One line for people: what was looked at, what it says, and what to do about it ("" if all is
// well).
struct HostFact {
  std::string what;
  std::string state;
  std::string fix;
};

// Hugepages, the device's driver, IOMMU, rights, interface and MTU, as far as they matter to these
// options.
[[nodiscard]] std::vector<HostFact> HostFacts(const DpdkOptions& options);

// Whether this process has a capability (linux/capability.h) in force.
[[nodiscard]] bool HasCapability(int capability);

}  // namespace ramferry::dpdk
