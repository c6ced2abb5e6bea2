// Finding the peer: its name, and a TCP connection to the first of its addresses that answers.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/unique_fd.h"

namespace ramferry {

struct Reached {
  UniqueFd connection;  // non-blocking
  std::string address;  // numeric; link-local ones with their zone ("fe80::1%eth0")
};

// Tries all addresses of `host` in the order of the system's resolver. Unavailable says which step
// failed and what to do. The look-up of a name has the resolver's own time limit, not `deadline`.
[[nodiscard]] absl::StatusOr<Reached> ReachTcp(const std::string& host, uint16_t port,
                                               Deadline deadline);

}  // namespace ramferry
