// What is said to a page channel before its first frame, over any TCP (the kernel's, TLS, DPDK), on
// both hosts, cut as the network may cut it (transport/tcp/handshake.h).
//
// Whoever does not prove the token is refused, with the reason; a token serves once; of the frames
// behind the handshake nothing is taken.
//
// Input: the first byte says who is spoken to and whether the proof is put in, the second seeds the
// cuts, the rest is what is said.
#include "tests/fuzz/page_handshake.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "transport/tcp/handshake.h"
#include "transport/tcp/token_registry.h"

namespace {

using namespace ramferry;
using namespace ramferry::tcp;

constexpr size_t kMessageBytes = 48;
constexpr size_t kProofAt = 16;

void Must(bool condition) {
  if (!condition) std::abort();
}

// A peer that says what it says, whatever it is told.
class Script final : public ByteStream {
 public:
  Script(std::vector<std::byte> said, uint32_t cut, bool encrypted)
      : said_(std::move(said)), cut_(cut), encrypted_(encrypted) {}

  absl::StatusOr<Progress> Send(std::span<const iovec> pieces, bool) override {
    size_t bytes = 0;
    for (const iovec& piece : pieces) bytes += piece.iov_len;
    return Progress{.bytes = std::min(bytes, Cut())};
  }
  absl::StatusOr<Progress> Receive(std::span<std::byte> into) override {
    if (at_ == said_.size()) return Progress{.ended = true};
    const size_t take = std::min({into.size(), said_.size() - at_, Cut()});
    if (take == 0) return Progress{.wait_for = POLLIN};
    std::memcpy(into.data(), said_.data() + at_, take);
    at_ += take;
    return Progress{.bytes = take};
  }
  absl::Status Wait(short, int, Deadline) override { return absl::OkStatus(); }
  void EndSending() override {}
  void Shutdown() override {}
  absl::StatusOr<Key> ExportKey(std::string_view context) const override {
    Key key{};
    std::memcpy(key.data(), context.data(), std::min(context.size(), key.size()));
    return key;
  }
  bool encrypted() const override { return encrypted_; }

  [[nodiscard]] size_t taken() const { return at_; }

 private:
  size_t Cut() {
    cut_ = cut_ * 1664525 + 1013904223;
    return (cut_ >> 24) % 40;
  }

  const std::vector<std::byte> said_;
  size_t at_ = 0;
  uint32_t cut_;
  const bool encrypted_;
};

class Nobody final : public TokenHolder {
 public:
  void Deliver(std::unique_ptr<ByteStream>, const std::string&, size_t) override {}
};

void PutIn(std::vector<std::byte>& said, const Key& proof) {
  if (said.size() < kProofAt) return;
  const size_t room = std::min(proof.size(), said.size() - kProofAt);
  std::memcpy(said.data() + kProofAt, proof.data(), room);
}

void SpeakToTheDestination(std::vector<std::byte> said, uint32_t cut, bool encrypted, bool knows) {
  TokenRegistry tokens;
  const auto holder = std::make_shared<Nobody>();
  const std::string token = tokens.Issue(holder, 1).front();
  const Prover prover = *Prover::For(Script({}, 0, encrypted));
  const Key right = prover.SourceProof(token);
  if (knows) PutIn(said, right);
  Script stream(said, cut, encrypted);
  const auto proof = ReadIntroduction(stream, -1, Deadline::max());
  Must(stream.taken() <= kMessageBytes);
  if (!proof.ok()) return Must(!proof.status().message().empty());
  Must(stream.taken() == kMessageBytes);
  const auto match = tokens.Take(prover, *proof);
  Must(match.has_value() == Equal(*proof, right));
  Must(!tokens.Take(prover, right).has_value() == match.has_value());  // it serves once
}

void SpeakToTheSource(std::vector<std::byte> said, uint32_t cut, bool encrypted, bool knows) {
  static const std::string& token = *new std::string(kTokenBytes, 't');
  const Prover prover = *Prover::For(Script({}, 0, encrypted));
  if (knows) PutIn(said, prover.DestinationProof(token));
  Script stream(said, cut, encrypted);
  const absl::Status status = Introduce(stream, token, -1, Deadline::max());
  Must(stream.taken() <= kMessageBytes);
  if (!status.ok()) return Must(!status.message().empty());
  const Key proof = prover.DestinationProof(token);
  Must(stream.taken() == kMessageBytes &&
       std::memcmp(said.data() + kProofAt, proof.data(), proof.size()) == 0);
}

}  // namespace

void ramferry::PlayPageHandshake(const uint8_t* data, size_t size) {
  if (size < 2) return;
  const auto* const bytes = reinterpret_cast<const std::byte*>(data);
  const std::vector<std::byte> said(bytes + 2, bytes + size);
  const bool encrypted = (data[0] & 2) != 0;
  const bool knows = (data[0] & 4) != 0;
  if ((data[0] & 1) == 0) {
    SpeakToTheDestination(said, data[1], encrypted, knows);
  } else {
    SpeakToTheSource(said, data[1], encrypted, knows);
  }
}
