// How a connection proves that it is a page channel of a certain migration, before any frame.
//
// The control channel gave the source a token, 32 random bytes. On a plain connection the source
// shows the token. Under TLS it shows HMAC-SHA256(token, K), where K is exported from the TLS
// session (RFC 8446, section 7.5): who records or relays it can do nothing with it in another
// session. The destination answers in kind, so that a source never gives pages to somebody who
// merely has a certificate of the same CA. Layout: docs/protocol.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "transport/tcp/byte_stream.h"

namespace ramferry::tcp {

inline constexpr size_t kTokenBytes = 32;

// From the kernel's random source.
[[nodiscard]] std::string NewToken();

// What each side shows for a token in one session.
class Prover {
 public:
  [[nodiscard]] static absl::StatusOr<Prover> For(const ByteStream& stream);

  [[nodiscard]] Key SourceProof(std::string_view token) const;
  [[nodiscard]] Key DestinationProof(std::string_view token) const;

 private:
  bool bound_ = false;  // to a TLS session
  Key source_key_{};
  Key destination_key_{};
};

// In constant time.
[[nodiscard]] bool Equal(const Key& a, const Key& b);

enum class Reply : uint16_t {
  kAccepted = 0,
  kNoCommonVersion = 1,
  kUnknownToken = 2,  // wrong, used before, or its migration is over
};

// Source: shows `token` and waits for the answer. PermissionDenied: refused, or the destination
// does not know the token itself. FailedPrecondition: no common version.
[[nodiscard]] absl::Status Introduce(ByteStream& stream, std::string_view token, int interrupt_fd,
                                     Deadline deadline);

// Destination: the proof the peer shows. FailedPrecondition: no common version; InvalidArgument: it
// is no page channel at all.
[[nodiscard]] absl::StatusOr<Key> ReadIntroduction(ByteStream& stream, int interrupt_fd,
                                                   Deadline deadline);

// Destination: the answer. `proof` counts only with kAccepted.
[[nodiscard]] absl::Status Answer(ByteStream& stream, Reply reply, const Key& proof,
                                  int interrupt_fd, Deadline deadline);

}  // namespace ramferry::tcp
