// TLS 1.3 under a page channel, both ends proven by certificates of one CA.
//
// The certificates say that a peer is a host of this installation; that it is *the* other end of
// this migration is proven by the token, bound to the session (handshake.h). So names in
// certificates are not compared here.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "transport/tcp/byte_stream.h"
#include "transport/tcp/tcp_options.h"

struct ssl_ctx_st;  // OpenSSL's SSL_CTX

namespace ramferry::tcp {

// Keys and settings of one end; used by any number of threads and connections.
class TlsContext {
 public:
  enum class Side { kSource, kDestination };

  // Reads the PEM files. The error names the file and what is wrong with it.
  [[nodiscard]] static absl::StatusOr<std::shared_ptr<const TlsContext>> Create(
      const TcpOptions& options, Side side);

  // The session over a connected stream. Unauthenticated: a certificate was refused, by this end or
  // by the other.
  [[nodiscard]] absl::StatusOr<std::unique_ptr<ByteStream>> Secure(
      std::unique_ptr<ByteStream> stream, int interrupt_fd, Deadline deadline) const;

 private:
  TlsContext(std::shared_ptr<ssl_ctx_st> context, Side side);

  std::shared_ptr<ssl_ctx_st> context_;
  Side side_;
};

}  // namespace ramferry::tcp
