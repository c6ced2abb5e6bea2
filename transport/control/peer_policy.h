// Which hosts of our own authority we deal with.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace grpc {
class AuthContext;
}

namespace ramferry {

struct PeerPolicy {
  // Certificate names; empty: every host of the authority.
  std::vector<std::string> allowed;
  // PEM file of revocation lists, read again for every peer; empty: none (revocation.h).
  std::string revocation_list;
};

// The name by which a peer, whose certificate gRPC has verified, is dealt with: of its names the
// first that is allowed. PermissionDenied: it has none that is, or its certificate is revoked.
// FailedPrecondition: the latter cannot be told. `where` is the list's name in messages, e.g. "the
// list of those that may send guests here".
[[nodiscard]] absl::StatusOr<std::string> AdmitPeer(const grpc::AuthContext& peer,
                                                    const PeerPolicy& policy,
                                                    const std::string& ca_pem,
                                                    const std::string& where);

}  // namespace ramferry
