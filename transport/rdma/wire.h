// What the two ends of an RDMA page channel say to each other beside the pages themselves.
//
// Connecting: 56 bytes of private data with the source's request (all that InfiniBand's connection
// manager leaves to its users) and a Welcome with the answer. Both carry a proof that the sender
// knows the channel's token, without showing it: HMAC-SHA256(token, role and nonce).
//
// Afterwards: Messages of 512 bytes by SEND on the channel's own queue pair, so that they are
// ordered behind the pages written before them. The source asks, one thing at a time:
//
//   kRegister: range 0, piece     -> kRegistered: piece, rkey, address
//   kRelease: piece               -> kReleased
//   kZero: ranges                 (no answer; done before the next kFlushed)
//   kFlush                        -> kFlushed
//   kProve: range 0 as written    -> kProved; the source has written the range, as it stands in the
//                                    message, to where the Welcome says, and there it must be
//   kBye                          (no answer: the source is done, nothing is wrong)
//   anything the destination cannot do -> kFailed: text; the channel is dead
//
// Every answer carries the sequence number of what it answers. Both hosts are little-endian.
#pragma once

#include <infiniband/verbs.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ramferry::rdma {

static_assert(std::endian::native == std::endian::little);

inline constexpr uint16_t kWireVersion = 2;

enum class MessageType : uint32_t {
  kRegister = 1,
  kRelease = 2,
  kZero = 3,
  kFlush = 4,
  kBye = 5,
  kProve = 6,
  kRegistered = 17,
  kReleased = 18,
  kFlushed = 19,
  kFailed = 20,
  kProved = 21,
};

struct WireRange {
  uint32_t region;
  uint32_t reserved;
  uint64_t offset;
  uint64_t length;
};

inline constexpr size_t kRangesPerMessage = 20;

struct Message {
  MessageType type;
  uint32_t count;  // of ranges, or of bytes of text
  uint64_t sequence;
  uint32_t piece;  // number that the source gave to a registered range
  uint32_t rkey;
  uint64_t address;
  union {
    WireRange ranges[kRangesPerMessage];
    char text[480];
  };
};
static_assert(sizeof(Message) == 512);

// Receives that the destination keeps posted: the source has at most so many messages unanswered.
inline constexpr uint32_t kMessageCredits = 32;

// Ranges the source may have registered at once, whatever the device would allow.
inline constexpr uint32_t kMostPieces = 16384;

// Whether a completion is that of a Message: not one of another length, nor a write of the peer's
// with immediate data, which takes a receive and leaves there what was in it before.
[[nodiscard]] inline bool IsMessage(const ibv_wc& completion) {
  return completion.opcode == IBV_WC_RECV && completion.byte_len == sizeof(Message) &&
         (completion.wc_flags & IBV_WC_WITH_IMM) == 0;
}

using Nonce = std::array<std::byte, 16>;
using Proof = std::array<std::byte, 32>;

struct Greeting {
  uint32_t magic;
  uint16_t version;
  uint16_t reserved;
  Nonce nonce;
  Proof proof;
};
static_assert(sizeof(Greeting) == 56);

struct Welcome {
  uint32_t magic;
  uint16_t version;
  uint16_t reserved;
  uint64_t pin_budget;            // bytes the source may have registered here at once
  uint64_t largest_registration;  // bytes of one piece
  uint32_t most_pieces;
  uint32_t proof_rkey;     // of a WireRange that the source may write to,
  uint64_t proof_address;  // to show that a write arrives
  Proof proof;
};
static_assert(sizeof(Welcome) == 72);

// A greeting with a fresh nonce.
[[nodiscard]] absl::StatusOr<Greeting> MakeGreeting(std::string_view token);

// The greeting in the bytes of a connection request; InvalidArgument when it is none of ours.
[[nodiscard]] absl::StatusOr<Greeting> ParseGreeting(std::span<const std::byte> bytes);
[[nodiscard]] bool Proves(const Greeting& greeting, std::string_view token);

[[nodiscard]] Welcome MakeWelcome(const Greeting& greeting, std::string_view token);
// Checks magic, version and proof.
[[nodiscard]] absl::StatusOr<Welcome> ParseWelcome(std::span<const std::byte> bytes,
                                                   const Greeting& greeting,
                                                   std::string_view token);

[[nodiscard]] Message MakeFailed(uint64_t sequence, std::string_view text);
[[nodiscard]] std::string TextOf(const Message& message);

}  // namespace ramferry::rdma
