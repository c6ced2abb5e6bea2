// How much memory this process may pin (RLIMIT_MEMLOCK, unless it has CAP_IPC_LOCK).
#pragma once

#include <optional>
#include <string>

#include "base/units.h"

namespace ramferry::rdma {

// Empty: no limit.
[[nodiscard]] std::optional<ByteCount> PinLimit();

// In a person's words: "RLIMIT_MEMLOCK is 8 MiB", "memory pinning is not limited".
[[nodiscard]] std::string DescribePinLimit();

}  // namespace ramferry::rdma
