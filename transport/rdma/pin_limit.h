// How much memory this process may pin (RLIMIT_MEMLOCK, unless it has CAP_IPC_LOCK).
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "base/units.h"

namespace ramferry::rdma {

// Empty: no limit.
[[nodiscard]] std::optional<ByteCount> PinLimit();

// In a person's words: "RLIMIT_MEMLOCK is 8 MiB", "memory pinning is not limited".
[[nodiscard]] std::string DescribePinLimit();

// FailedPrecondition, with the ways to change it, when `wanted` bytes cannot be pinned.
[[nodiscard]] absl::Status CheckPinLimit(ByteCount wanted);

}  // namespace ramferry::rdma
