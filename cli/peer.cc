#include "cli/peer.h"

#include "base/status.h"
#include "cli/host_address.h"
#include "transport/control/revocation.h"

namespace ramferry {

absl::StatusOr<Identity> LoadOwnIdentity(const Settings& settings) {
  ASSIGN_OR_RETURN(Identity identity,
                   LoadIdentity(settings.ca, settings.certificate, settings.key));
  const absl::Status good =
      CheckNotRevoked(identity.certificate_pem, identity.ca_pem, settings.revocation_list);
  if (!good.ok()) return Annotate(good, "this host");
  return identity;
}

absl::StatusOr<ControlClientOptions> ReachPeer(const std::string& destination,
                                               const Settings& settings,
                                               const std::string& server_name) {
  ASSIGN_OR_RETURN(const HostPort peer, ParseHostPort(destination, kDefaultPort));
  ASSIGN_OR_RETURN(Identity identity, LoadOwnIdentity(settings));
  return ControlClientOptions{
      .host = peer.host,
      .port = peer.port,
      .identity = std::move(identity),
      .policy = {.allowed = settings.send_to, .revocation_list = settings.revocation_list},
      .accept_timeout = std::chrono::seconds(settings.answer_s),
      .expected_name = server_name};
}

}  // namespace ramferry
