// A DPDK port with one receive and one transmit queue: the Wire of the product. The EAL must have
// been set up (eal.h), and it with the device of the same options.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "transport/dpdk/dpdk_options.h"
#include "transport/dpdk/wire.h"

namespace ramferry::dpdk {

// The one port of this process, configured and started. FailedPrecondition: which step the driver
// refused, and why.
[[nodiscard]] absl::StatusOr<std::unique_ptr<Wire>> OpenPort(const DpdkOptions& options);

}  // namespace ramferry::dpdk
