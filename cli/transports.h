// Which transports this build, host and configuration have, for either side: the one place of the
// product that knows transports by name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "cli/settings.h"
#include "transport/page_channel.h"
#ifdef RAMFERRY_DPDK
#include "transport/dpdk/dpdk_options.h"
#endif

namespace ramferry {

// For the source, in order of preference: RDMA where this host can and the settings allow it, then
// DPDK where a port is set up, then TCP; the last two encrypted unless the settings, or a
// destination that is this machine, say otherwise. RDMA is never encrypted: with encryption "on" it
// is left out. `cancel` ends their attempts to connect, and must outlive them. FailedPrecondition:
// what was asked for is not there.
[[nodiscard]] absl::StatusOr<std::vector<std::unique_ptr<ChannelConnector>>> MakeConnectors(
    const std::string& destination_host, const Settings& settings, const Cancellation& cancel);

// For the destination: everything that a source may choose from. In automatic encryption only this
// machine itself may send in the clear over TCP.
[[nodiscard]] absl::StatusOr<std::vector<std::unique_ptr<ChannelListener>>> MakeListeners(
    const Settings& settings);

#ifdef RAMFERRY_DPDK
[[nodiscard]] dpdk::DpdkOptions DpdkOptionsOf(const Settings& settings);
#endif

}  // namespace ramferry
