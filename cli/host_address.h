// HOST:PORT as people write it, and whether a host is this machine.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace ramferry {

struct HostPort {
  std::string host;  // name or address; IPv6 without brackets
  uint16_t port = 0;
};

// "beta", "beta:7711", "192.0.2.2:7711", "[2001:db8::2]:7711", "2001:db8::2".
[[nodiscard]] absl::StatusOr<HostPort> ParseHostPort(const std::string& text,
                                                     uint16_t default_port);

// Whether every address of `host` is one of this machine's (of this network namespace's).
[[nodiscard]] bool IsThisMachine(const std::string& host);

}  // namespace ramferry
