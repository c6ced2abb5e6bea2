// Who a host is: a private key, a certificate with its names, and the authority that vouches for
// it.
//
// Every host of a site has HOST.pem and HOST-key.pem, and the ca.pem of the one authority that all
// of them trust. For trying out, and for small sites, Ramferry makes them itself:
//
//   RETURN_IF_ERROR(CreateAuthority({.directory = "/etc/ramferry", .name = "my cluster"}));
//   RETURN_IF_ERROR(CreateHostCertificate({.directory = "/etc/ramferry", .host = "alpha",
//                                          .names = {"alpha.example", "192.0.2.1"}}));
//   ASSIGN_OR_RETURN(Identity identity, LoadIdentity("/etc/ramferry/ca.pem", ...));
//
// Keys are EC P-256, with mode 0600; certificates are public, with mode 0644. An existing file is
// replaced only when asked to. Nothing here keeps a key in memory longer than its result lives.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ramferry {

struct AuthorityRequest {
  std::string directory;  // made if there is none; gets ca.pem and ca-key.pem
  std::string name = "Ramferry authority";
  int days = 3650;         // valid from an hour ago (clocks differ) for so long
  bool overwrite = false;  // replacing an authority makes all its host certificates worthless
};
[[nodiscard]] absl::Status CreateAuthority(const AuthorityRequest& request);

struct HostCertificateRequest {
  std::string directory;           // holds ca.pem and ca-key.pem; gets HOST.pem and HOST-key.pem
  std::string host;                // DNS name; also the name of the files, and always a name
  std::vector<std::string> names;  // further DNS names and IP addresses by which it is reached
  int days = 825;                  // from an hour ago; negative: already expired (for tests)
  bool overwrite = false;
};
[[nodiscard]] absl::Status CreateHostCertificate(const HostCertificateRequest& request);

// What a host needs to prove who it is, and to check who a peer is. Contains the private key.
struct Identity {
  std::string ca_pem;
  std::string certificate_pem;  // with the intermediate certificates, if there are any
  std::string key_pem;
  std::string name;  // first DNS name of the certificate (else its common name)
};

// Reads and checks the three PEM files: they exist, the key fits the certificate and is not
// readable by everybody, the authority vouches for the certificate, and it is valid now. Every
// error says which file, and what to do.
[[nodiscard]] absl::StatusOr<Identity> LoadIdentity(const std::string& ca_path,
                                                    const std::string& certificate_path,
                                                    const std::string& key_path);

}  // namespace ramferry
