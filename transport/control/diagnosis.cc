#include "transport/control/diagnosis.h"

#include <fmt/format.h>
#include <poll.h>

#include "base/no_sigpipe.h"
#include "base/status.h"
#include "transport/control/openssl_ptr.h"
#include "transport/control/peer.h"
#include "transport/control/reach.h"

namespace ramferry {
namespace {

bool WaitFor(int fd, short events, Deadline deadline) {
  pollfd waiting = {.fd = fd, .events = events};
  return ::poll(&waiting, 1, MillisecondsLeft(deadline)) > 0;
}

absl::StatusOr<SslPtr> PrepareTls(int fd, const std::string& expected_name,
                                  const Identity& identity) {
  const SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
  const X509Ptr certificate = ParseCertificate(identity.certificate_pem);
  const EvpPkeyPtr key(
      PEM_read_bio_PrivateKey(ReadBio(identity.key_pem).get(), nullptr, nullptr, nullptr));
  const BioPtr authorities = ReadBio(identity.ca_pem);
  while (const X509Ptr ca{PEM_read_bio_X509(authorities.get(), nullptr, nullptr, nullptr)}) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), ca.get());
  }
  ERR_clear_error();
  if (SSL_CTX_use_certificate(context.get(), certificate.get()) != 1 ||
      SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1) {
    return absl::FailedPreconditionError("this host's certificate and key cannot be used: " +
                                         OpensslReason());
  }
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SslPtr ssl(SSL_new(context.get()));
  X509_VERIFY_PARAM* verify = SSL_get0_param(ssl.get());
  if (X509_VERIFY_PARAM_set1_ip_asc(verify, expected_name.c_str()) != 1) {
    X509_VERIFY_PARAM_set1_host(verify, expected_name.c_str(), expected_name.size());
    // What the macro SSL_set_tlsext_host_name does, without its C cast.
    SSL_ctrl(ssl.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
             const_cast<char*>(expected_name.c_str()));
  }
  ERR_clear_error();
  static constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  SSL_set_alpn_protos(ssl.get(), kHttp2, sizeof kHttp2);
  SSL_set_fd(ssl.get(), fd);
  SSL_set_connect_state(ssl.get());
  return ssl;
}

absl::Status ExplainVerification(long error, const std::string& peer,
                                 const std::string& expected_name) {
  const std::string head = fmt::format("refused to talk to {}: ", peer);
  switch (error) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return absl::UnauthenticatedError(
          fmt::format("{}its certificate is not for the name {}; use a name that is in it, or make "
                      "one with that "
                      "name",
                      head, expected_name));
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return absl::UnauthenticatedError(head +
                                        "its certificate has expired; make a new one for it");
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return absl::UnauthenticatedError(
          head + "its certificate is not valid yet; check the clocks of both hosts");
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return absl::UnauthenticatedError(
          head + "its certificate was not made by this host's authority; both hosts need the same");
    default:
      return absl::UnauthenticatedError(
          head + "its certificate is not acceptable: " + X509_verify_cert_error_string(error));
  }
}

// Whatever ended the handshake. A server that has proven itself and then hangs up does not like our
// certificate; gRPC's does not send the alert that would say why.
absl::Status ExplainTlsError(const std::string& peer, const Identity& identity, bool proven) {
  const unsigned long error = ERR_peek_error();
  const std::string reason = OpensslReason();
  if (proven) {
    const X509Ptr own = ParseCertificate(identity.certificate_pem);
    if (own != nullptr && X509_cmp_current_time(X509_get0_notAfter(own.get())) < 0) {
      return absl::PermissionDeniedError(
          fmt::format("{} refused this host: its certificate has expired; make a new one", peer));
    }
    return absl::PermissionDeniedError(
        fmt::format("{} refused this host's certificate: it must be made by the authority that is "
                    "trusted there, and be valid by the clock there",
                    peer));
  }
  switch (ERR_GET_REASON(error)) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
      return absl::UnavailableError(
          fmt::format("{} does not speak TLS; is that the port of 'ramferry receive'?", peer));
    default:
      break;
  }
  if (error == 0) {
    return absl::UnavailableError(
        fmt::format("{} closed the connection before it proved who it is", peer));
  }
  return absl::UnavailableError(fmt::format("no secure connection to {}: {}", peer, reason));
}

}  // namespace

absl::Status DiagnoseConnection(const std::string& host, uint16_t port,
                                const std::string& expected_name, const Identity& identity,
                                Deadline deadline) {
  const std::string peer = HostAndPort(host, port);
  const NoSigpipe no_sigpipe;
  ASSIGN_OR_RETURN(const Reached reached, ReachTcp(host, port, deadline));
  const int fd = reached.connection.get();
  ASSIGN_OR_RETURN(const SslPtr ssl, PrepareTls(fd, expected_name, identity));
  // With TLS 1.3 a server judges our certificate after our side of the handshake is complete: only
  // the first byte from it (HTTP/2 servers speak at once) shows that it accepts us.
  char first;
  while (true) {
    const int result = SSL_read(ssl.get(), &first, 1);
    if (result == 1) return absl::OkStatus();
    const int error = SSL_get_error(ssl.get(), result);
    const bool wait = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
    if (!wait) break;
    if (!WaitFor(fd, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline)) {
      return absl::UnavailableError(
          fmt::format("{} accepts connections but does not answer", peer));
    }
  }
  if (const long verdict = SSL_get_verify_result(ssl.get()); verdict != X509_V_OK) {
    ERR_clear_error();
    return ExplainVerification(verdict, peer, expected_name);
  }
  return ExplainTlsError(peer, identity, SSL_get0_peer_certificate(ssl.get()) != nullptr);
}

}  // namespace ramferry
