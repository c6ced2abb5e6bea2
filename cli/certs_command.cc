// `ramferry certs`: an authority and host certificates, for trying out and for small sites.
#include <unistd.h>

#include <sstream>

#include "base/host_identity.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/say.h"
#include "transport/control/certificates.h"
#include "transport/control/revocation.h"

namespace ramferry {
namespace {

absl::Status Revoke(const CertsArguments& arguments) {
  for (const std::string& host : arguments.revoked) {
    RETURN_IF_ERROR(RevokeCertificate(arguments.directory, host));
    Say("{0}/crl.pem   revokes {0}/{1}.pem: goes to every host\n", arguments.directory, host);
  }
  return absl::OkStatus();
}

absl::Status MakeCertificates(const CertsArguments& arguments) {
  // An authority that is there is used: hosts can be added later.
  if (arguments.overwrite || ::access((arguments.directory + "/ca.pem").c_str(), F_OK) != 0) {
    RETURN_IF_ERROR(
        CreateAuthority({.directory = arguments.directory, .overwrite = arguments.overwrite}));
    Say("{0}/ca.pem       the authority: goes to every host\n"
        "{0}/ca-key.pem   its key: stays here, in safety\n",
        arguments.directory);
  }
  std::vector<std::string> hosts = arguments.hosts;
  if (hosts.empty()) hosts.push_back(HostName() + "=localhost,127.0.0.1,::1");
  for (const std::string& host : hosts) {
    const size_t equals = host.find('=');
    const std::string name = host.substr(0, equals);
    HostCertificateRequest request{
        .directory = arguments.directory, .host = name, .overwrite = arguments.overwrite};
    std::istringstream names(equals == std::string::npos ? "" : host.substr(equals + 1));
    for (std::string more; std::getline(names, more, ',');) request.names.push_back(more);
    RETURN_IF_ERROR(CreateHostCertificate(request));
    Say("{0}/{1}.pem, {0}/{1}-key.pem   for host {1}\n", arguments.directory, name);
  }
  return absl::OkStatus();
}

}  // namespace

int CertsCommand(const CertsArguments& arguments) {
  const absl::Status status =
      arguments.revoked.empty() ? MakeCertificates(arguments) : Revoke(arguments);
  if (!status.ok()) {
    Tell("ramferry: {}\n", Message(status));
    return absl::IsInvalidArgument(status) ? kExitUsage : kExitError;
  }
  return kExitOk;
}

}  // namespace ramferry
