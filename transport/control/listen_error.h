// Why a server cannot listen, in words; gRPC only says that it cannot.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace ramferry {

// Tries the same again with plain sockets. Never OK.
[[nodiscard]] absl::Status ExplainListenError(const std::string& address, uint16_t port);

}  // namespace ramferry
