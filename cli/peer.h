// The destination as `ramferry migrate`, `resolve` and the recovery reach it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cli/settings.h"
#include "transport/control/client.h"

namespace ramferry {

// This host's identity, read and checked: also that its own authority has not revoked it, and that
// the revocation list (if the settings name one) can be used.
[[nodiscard]] absl::StatusOr<Identity> LoadOwnIdentity(const Settings& settings);

// Options for the control channel to `destination` (HOST[:PORT]), this host's identity read.
[[nodiscard]] absl::StatusOr<ControlClientOptions> ReachPeer(const std::string& destination,
                                                             const Settings& settings,
                                                             const std::string& server_name = "");

}  // namespace ramferry
