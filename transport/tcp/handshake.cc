#include "transport/tcp/handshake.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/status.h"
#include "transport/tcp/frame.h"

namespace ramferry::tcp {
namespace {

constexpr char kMagic[] = "RFYPAGES";
constexpr size_t kMagicBytes = 8;

// Both messages: magic, four bytes of versions or version and reply, flags, proof.
constexpr size_t kMessageBytes = 48;
constexpr size_t kFlagsAt = 12;
constexpr size_t kProofAt = 16;
constexpr uint32_t kBoundToSession = 1;
using Message = std::array<std::byte, kMessageBytes>;

Message NewMessage(const Key& proof) {
  Message message{};
  std::memcpy(message.data(), kMagic, kMagicBytes);
  std::memcpy(message.data() + kProofAt, proof.data(), proof.size());
  return message;
}

bool HasMagic(const Message& message) {
  return std::memcmp(message.data(), kMagic, kMagicBytes) == 0;
}

Key ProofIn(const Message& message) {
  Key proof;
  std::memcpy(proof.data(), message.data() + kProofAt, proof.size());
  return proof;
}

Key Hmac(std::string_view token, const Key& session_key) {
  Key out{};
  unsigned int length = 0;
  ::HMAC(EVP_sha256(), token.data(), static_cast<int>(token.size()),
         reinterpret_cast<const unsigned char*>(session_key.data()), session_key.size(),
         reinterpret_cast<unsigned char*>(out.data()), &length);
  return out;
}

}  // namespace

std::string NewToken() {
  std::string token(kTokenBytes, '\0');
  size_t filled = 0;
  while (filled < token.size()) {
    const ssize_t got = ::getrandom(token.data() + filled, token.size() - filled, 0);
    if (got < 0 && errno != EINTR) std::abort();  // Linux >= 3.17 cannot fail here
    if (got > 0) filled += static_cast<size_t>(got);
  }
  return token;
}

absl::StatusOr<Prover> Prover::For(const ByteStream& stream) {
  Prover prover;
  prover.bound_ = stream.encrypted();
  if (prover.bound_) {
    ASSIGN_OR_RETURN(prover.source_key_, stream.ExportKey("source"));
    ASSIGN_OR_RETURN(prover.destination_key_, stream.ExportKey("destination"));
  }
  return prover;
}

Key Prover::SourceProof(std::string_view token) const {
  if (bound_) return Hmac(token, source_key_);
  Key shown{};
  std::memcpy(shown.data(), token.data(), std::min(token.size(), shown.size()));
  return shown;
}

Key Prover::DestinationProof(std::string_view token) const {
  return bound_ ? Hmac(token, destination_key_) : Key{};
}

bool Equal(const Key& a, const Key& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

absl::Status Introduce(ByteStream& stream, std::string_view token, int interrupt_fd,
                       Deadline deadline) {
  if (token.size() != kTokenBytes) {
    return absl::InvalidArgumentError(
        fmt::format("the destination's offer has a token of {} bytes instead of {}", token.size(),
                    kTokenBytes));
  }
  ASSIGN_OR_RETURN(const Prover prover, Prover::For(stream));
  Message hello = NewMessage(prover.SourceProof(token));
  Store(hello.data() + 8, kVersion);   // oldest
  Store(hello.data() + 10, kVersion);  // newest
  Store(hello.data() + kFlagsAt, stream.encrypted() ? kBoundToSession : 0U);
  RETURN_IF_ERROR(SendAll(stream, hello, interrupt_fd, deadline));

  Message answer;
  RETURN_IF_ERROR(ReceiveAll(stream, answer, interrupt_fd, deadline));
  if (!HasMagic(answer)) {
    return absl::InvalidArgumentError("what answers there is no Ramferry page channel");
  }
  const auto version = Load<uint16_t>(answer.data() + 8);
  switch (static_cast<Reply>(Load<uint16_t>(answer.data() + 10))) {
    case Reply::kAccepted:
      break;
    case Reply::kNoCommonVersion:
      return absl::FailedPreconditionError(
          fmt::format("the destination speaks page channel version {}, this host {}: update the "
                      "older one",
                      version, kVersion));
    case Reply::kUnknownToken:
      return absl::PermissionDeniedError(
          "the destination does not know this channel's token: it was used before, or its "
          "migration is over");
    default:
      return absl::InvalidArgumentError("the destination gave an answer that does not exist");
  }
  if (version != kVersion) {
    return absl::InvalidArgumentError(fmt::format(
        "the destination chose page channel version {}, which was not offered", version));
  }
  if (!Equal(ProofIn(answer), prover.DestinationProof(token))) {
    return absl::PermissionDeniedError(
        "what answers there did not prove that it is the destination: no page was sent to it");
  }
  return absl::OkStatus();
}

absl::StatusOr<Key> ReadIntroduction(ByteStream& stream, int interrupt_fd, Deadline deadline) {
  Message hello;
  RETURN_IF_ERROR(ReceiveAll(stream, hello, interrupt_fd, deadline));
  if (!HasMagic(hello)) return absl::InvalidArgumentError("it is no Ramferry page channel");
  const auto oldest = Load<uint16_t>(hello.data() + 8);
  const auto newest = Load<uint16_t>(hello.data() + 10);
  if (oldest > kVersion || newest < kVersion) {
    return absl::FailedPreconditionError(fmt::format(
        "it speaks page channel versions {} to {}, this host {}", oldest, newest, kVersion));
  }
  const uint32_t flags = stream.encrypted() ? kBoundToSession : 0U;
  if (Load<uint32_t>(hello.data() + kFlagsAt) != flags) {
    return absl::InvalidArgumentError("its token is not proven in the way this listener asks for");
  }
  return ProofIn(hello);
}

absl::Status Answer(ByteStream& stream, Reply reply, const Key& proof, int interrupt_fd,
                    Deadline deadline) {
  Message answer = NewMessage(reply == Reply::kAccepted ? proof : Key{});
  Store(answer.data() + 8, kVersion);
  Store(answer.data() + 10, static_cast<uint16_t>(reply));
  return SendAll(stream, answer, interrupt_fd, deadline);
}

}  // namespace ramferry::tcp
