#include "transport/rdma/wire.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace ramferry::rdma {
namespace {

constexpr uint32_t kMagic = 0x59524652;  // "RFRY"

Proof Prove(std::string_view role, const Nonce& nonce, std::string_view token) {
  std::array<unsigned char, 64> text{};
  const size_t role_length = std::min(role.size(), text.size() - nonce.size());
  std::memcpy(text.data(), role.data(), role_length);
  std::memcpy(text.data() + role_length, nonce.data(), nonce.size());
  Proof proof{};
  unsigned int length = proof.size();
  HMAC(EVP_sha256(), token.data(), static_cast<int>(token.size()), text.data(),
       role_length + nonce.size(), reinterpret_cast<unsigned char*>(proof.data()), &length);
  return proof;
}

bool Same(const Proof& a, const Proof& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

constexpr std::string_view kSourceRole = "ramferry rdma source";
constexpr std::string_view kDestinationRole = "ramferry rdma destination";

}  // namespace

absl::StatusOr<Greeting> MakeGreeting(std::string_view token) {
  Greeting greeting{};
  greeting.magic = kMagic;
  greeting.version = kWireVersion;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(greeting.nonce.data()),
                 static_cast<int>(greeting.nonce.size())) != 1) {
    return absl::InternalError("no random bytes for an RDMA connection from OpenSSL");
  }
  greeting.proof = Prove(kSourceRole, greeting.nonce, token);
  return greeting;
}

absl::StatusOr<Greeting> ParseGreeting(std::span<const std::byte> bytes) {
  Greeting greeting{};
  if (bytes.size() < sizeof greeting) {
    return absl::InvalidArgumentError("not a Ramferry source: its greeting is too short");
  }
  std::memcpy(&greeting, bytes.data(), sizeof greeting);
  if (greeting.magic != kMagic) {
    return absl::InvalidArgumentError("not a Ramferry source: its greeting is of something else");
  }
  if (greeting.version != kWireVersion) {
    return absl::InvalidArgumentError(
        fmt::format("the source speaks version {} of the RDMA channel, this host version {}: "
                    "bring both to the same release",
                    greeting.version, kWireVersion));
  }
  return greeting;
}

bool Proves(const Greeting& greeting, std::string_view token) {
  return Same(greeting.proof, Prove(kSourceRole, greeting.nonce, token));
}

Welcome MakeWelcome(const Greeting& greeting, std::string_view token) {
  Welcome welcome{};
  welcome.magic = kMagic;
  welcome.version = kWireVersion;
  welcome.proof = Prove(kDestinationRole, greeting.nonce, token);
  return welcome;
}

absl::StatusOr<Welcome> ParseWelcome(std::span<const std::byte> bytes, const Greeting& greeting,
                                     std::string_view token) {
  Welcome welcome{};
  if (bytes.size() < sizeof welcome) {
    return absl::InvalidArgumentError("the RDMA peer is not a Ramferry destination");
  }
  std::memcpy(&welcome, bytes.data(), sizeof welcome);
  if (welcome.magic != kMagic || welcome.version != kWireVersion) {
    return absl::InvalidArgumentError(
        "the RDMA peer is not a Ramferry destination of this version");
  }
  if (!Same(welcome.proof, Prove(kDestinationRole, greeting.nonce, token))) {
    return absl::UnauthenticatedError(
        "the RDMA peer does not know the channel's token: something else answers at the address "
        "of the offer");
  }
  return welcome;
}

Message MakeFailed(uint64_t sequence, std::string_view text) {
  Message message{};
  message.type = MessageType::kFailed;
  message.sequence = sequence;
  message.count = static_cast<uint32_t>(std::min(text.size(), sizeof message.text));
  std::memcpy(message.text, text.data(), message.count);
  return message;
}

std::string TextOf(const Message& message) {
  return std::string(message.text, std::min<size_t>(message.count, sizeof message.text));
}

}  // namespace ramferry::rdma
