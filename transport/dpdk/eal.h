// DPDK's environment (EAL): one a process, set up once, by the thread that will poll.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "transport/dpdk/dpdk_options.h"

namespace ramferry::dpdk {

// What kind of device DpdkOptions::device names.
enum class DeviceKind { kPci, kInterface, kVirtual };
[[nodiscard]] DeviceKind KindOf(const std::string& device);

// What stands in the way of this device on this host, each with what to do; OK: nothing that can be
// seen from outside. Touches nothing.
[[nodiscard]] absl::Status CheckDevice(const DpdkOptions& options);

// The CPUs the polling thread is bound to: those of the options, else those near the device (the
// kernel's local_cpulist), as far as this process may use them.
[[nodiscard]] CpuSet PollingCpus(const DpdkOptions& options);

// Hugepages that are free on this host, in MiB.
[[nodiscard]] uint64_t FreeHugepagesMib();
// Whether these options use them.
[[nodiscard]] bool UsesHugepages(const DpdkOptions& options);

// FailedPrecondition, with DPDK's own last words, when it cannot be; also the second time in a
// process: DPDK cannot be set up again.
[[nodiscard]] absl::Status StartEal(const DpdkOptions& options);
void StopEal();
// DPDK's last words since the last call, for an error message.
[[nodiscard]] std::string TakeEalWords();

}  // namespace ramferry::dpdk
