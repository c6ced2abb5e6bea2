// Certificates that their authority has made worthless before they expire: revocation lists (CRLs).
//
//   RETURN_IF_ERROR(RevokeCertificate("/etc/ramferry/ca", "alpha"));       // where the authority
//   is RETURN_IF_ERROR(CheckNotRevoked(peer_pem, identity.ca_pem, "/etc/ramferry/crl.pem"));
//
// A list is a PEM file; one made by any other tool of the same authority serves as well. Source:
// RFC 5280, section 5.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace ramferry {

// Adds the certificate DIRECTORY/HOST.pem to the list DIRECTORY/crl.pem, which is made if there is
// none, and signs it anew with the authority of that directory. Idempotent.
[[nodiscard]] absl::Status RevokeCertificate(const std::string& directory, const std::string& host);

// Whether the list still knows nothing against a certificate, whose chain (PEM, its own first) was
// verified already. Reads the list anew, so that a new one counts at once. PermissionDenied: it is
// revoked. FailedPrecondition: that cannot be told, because the list is not there, not this
// authority's or out of date. A list that is empty text ("") is none: OK.
[[nodiscard]] absl::Status CheckNotRevoked(const std::string& chain_pem, const std::string& ca_pem,
                                           const std::string& list_path);

}  // namespace ramferry
