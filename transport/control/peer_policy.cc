#include "transport/control/peer_policy.h"

#include <fmt/format.h>
#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include <algorithm>

#include "base/status.h"
#include "transport/control/peer.h"
#include "transport/control/revocation.h"

namespace ramferry {
namespace {

// Its own certificate first: at a server gRPC's chain does not begin with it.
std::string ChainOf(const grpc::AuthContext& peer) {
  std::string chain;
  for (const char* property :
       {GRPC_X509_PEM_CERT_PROPERTY_NAME, GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME}) {
    for (const grpc::string_ref& value : peer.FindPropertyValues(property)) {
      chain.append(value.data(), value.size());
    }
  }
  return chain;
}

}  // namespace

absl::StatusOr<std::string> AdmitPeer(const grpc::AuthContext& peer, const PeerPolicy& policy,
                                      const std::string& ca_pem, const std::string& where) {
  const std::vector<std::string> names = NamesOfPeer(peer);
  if (names.empty()) {
    return absl::PermissionDeniedError("the certificate of the caller has no name in it");
  }
  const auto allowed = [&policy](const std::string& name) {
    return policy.allowed.empty() ||
           std::find(policy.allowed.begin(), policy.allowed.end(), name) != policy.allowed.end();
  };
  const auto name = std::find_if(names.begin(), names.end(), allowed);
  if (name == names.end()) {
    return absl::PermissionDeniedError(
        fmt::format("the host {} is not on {}", names.front(), where));
  }
  const absl::Status good = CheckNotRevoked(ChainOf(peer), ca_pem, policy.revocation_list);
  if (!good.ok()) return Annotate(good, "host " + *name);
  return *name;
}

}  // namespace ramferry
