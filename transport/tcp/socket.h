// Sockets as page channels want them: non-blocking, no delay, quick to notice a silent peer.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/unique_fd.h"

namespace ramferry::tcp {

// `host` is a numeric IPv4 or IPv6 address (with %scope where it needs one). Cancelled once
// `interrupt_fd` is readable; -1: nothing interrupts.
[[nodiscard]] absl::StatusOr<UniqueFd> ConnectTo(const std::string& host, uint16_t port,
                                                 int interrupt_fd, Deadline deadline);
// Port 0: any free one. An empty host: all addresses, IPv6 and IPv4.
[[nodiscard]] absl::StatusOr<UniqueFd> ListenAt(const std::string& host, uint16_t port);
[[nodiscard]] absl::StatusOr<uint16_t> PortOf(const UniqueFd& listening);

// The kernel gives the connection up when the peer acknowledges nothing for `silence`, data waiting
// or not.
[[nodiscard]] absl::Status Prepare(const UniqueFd& socket, std::chrono::milliseconds silence);

// "192.0.2.1:4711", "[2001:db8::1]:4711"; for messages.
[[nodiscard]] std::string Endpoint(const std::string& host, uint16_t port);
[[nodiscard]] std::string PeerOf(const UniqueFd& socket);

}  // namespace ramferry::tcp
