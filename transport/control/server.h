// The destination's end of the control channel: listens, proves who calls, hands over to a service.
//
//   class Receiver : public ControlService { ... };
//   Receiver receiver;
//   ASSIGN_OR_RETURN(auto server, ControlServer::Start({.port = 7711, .identity = me}, receiver));
//   ...
//   RETURN_IF_ERROR(server->Stop(In(10s)));
//
// A client that cannot present a certificate of our authority never gets as far as the service; one
// whose name is not allowed, or that is one migration too many, is told so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "transport/control/certificates.h"
#include "transport/control/peer_policy.h"
#include "transport/control_channel.h"

namespace ramferry {

// All calls come from several threads at a time; migration ids are well-formed UUIDs; peer names
// are proven by a certificate.
class ControlService {
 public:
  virtual ~ControlService() = default;
  // One migration, on a thread of its own. When it returns, what was sent is delivered and the
  // channel is closed; the channel may not be used afterwards.
  virtual void Serve(ControlChannel& channel) = 0;
  // What became of a migration that `peer_name` had started; never another one's (kUnknown then).
  // Should answer within about a second.
  [[nodiscard]] virtual absl::StatusOr<Verdict> Settle(const std::string& migration_id,
                                                       const std::string& peer_name) = 0;
  // The source has recorded the end of the migration: it may be forgotten. Idempotent.
  [[nodiscard]] virtual absl::Status Confirm(const std::string& migration_id,
                                             const std::string& peer_name) = 0;
};

struct ControlServerOptions {
  std::string address = "::";  // IPv4 or IPv6 address or host name; "::": all, IPv4 too
  uint16_t port = 0;           // 0: any free one
  Identity identity;
  PeerPolicy policy;          // who may come
  size_t max_migrations = 8;  // at a time; more are refused with the reason
};

class ControlServer {
 public:
  // The service must outlive the server.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<ControlServer>> Start(
      const ControlServerOptions& options, ControlService& service);
  // Stops, and waits for every Serve to return.
  virtual ~ControlServer() = default;

  [[nodiscard]] virtual uint16_t port() const = 0;

  // Who may come from now on. What is under way goes on.
  virtual void SetPolicy(PeerPolicy policy) = 0;

  // Takes no new migration, closes the channels of those under way (their Send and Receive fail
  // with Unavailable), and waits for every Serve to return. DeadlineExceeded: some have not; call
  // again.
  [[nodiscard]] virtual absl::Status Stop(Deadline deadline) = 0;
};

}  // namespace ramferry
