// Why a control connection cannot be made, in words. gRPC says little more than "unavailable".
//
// Called only after a connection has failed: it tries the same steps again one by one (name, TCP,
// TLS in both directions) and reports the first that goes wrong.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "base/deadline.h"
#include "transport/control/certificates.h"

namespace ramferry {

// `expected_name` is what the peer's certificate must say: a DNS name or an IP address.
// OK when nothing is wrong (any more). Takes at most until `deadline`.
[[nodiscard]] absl::Status DiagnoseConnection(const std::string& host, uint16_t port,
                                              const std::string& expected_name,
                                              const Identity& identity, Deadline deadline);

}  // namespace ramferry
