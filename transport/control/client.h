// The source's end of the control channel, and its questions about a migration afterwards.
//
//   ASSIGN_OR_RETURN(auto channel, ConnectControl({.host = "beta", .port = 7711, .identity = me}));
//   RETURN_IF_ERROR(channel->Send(Hello{...}));
//   ASSIGN_OR_RETURN(ControlMessage answer, channel->Receive(In(10s)));
//   ...
//   channel.reset();   // what was sent is delivered first, within a few seconds
//
// Both sides prove who they are with certificates of the same authority, and the destination's must
// carry the name by which it is called here. A peer that falls silent is noticed within about seven
// seconds. Destroying a channel closes it and waits until the destination has read everything, at
// most about five seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "transport/control/certificates.h"
#include "transport/control/peer_policy.h"
#include "transport/control_channel.h"

namespace ramferry {

struct ControlClientOptions {
  std::string host;  // DNS name, IPv4 or IPv6 address (without brackets)
  uint16_t port = 0;
  Identity identity;
  PeerPolicy policy;  // who may be called: besides the name, which must be its own
  // To reach the host: name look-up and TCP. For each question: the answer as well.
  std::chrono::milliseconds connect_timeout{10'000};
  // For TLS and for the migration to be accepted, by a host that was reached: it may be busy.
  std::chrono::milliseconds accept_timeout{30'000};
  // What the destination's certificate must say instead of `host`; for tests only.
  std::string expected_name;
};

// Errors: Unauthenticated (the destination's certificate is not good), PermissionDenied (it does
// not accept ours, or not our name), ResourceExhausted (it has too many migrations),
// DeadlineExceeded, Unavailable (anything else: no such host, nothing listens, no TLS, ...).
[[nodiscard]] absl::StatusOr<std::unique_ptr<ControlChannel>> ConnectControl(
    const ControlClientOptions& options);

// What the destination knows about a migration. An error means that it could not be asked.
[[nodiscard]] absl::StatusOr<Verdict> AskVerdict(const ControlClientOptions& options,
                                                 const std::string& migration_id);

// Tells the destination that this side has recorded how the migration ended: it may forget it.
[[nodiscard]] absl::Status ConfirmVerdict(const ControlClientOptions& options,
                                          const std::string& migration_id);

}  // namespace ramferry
