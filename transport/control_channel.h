// The control channel: how the two ends of one migration talk, in order, beside the page channels.
//
// Plain messages, checked once at the edge (transport/control/codec.h): what the engine receives is
// well-formed. The order in which they may come is the engine's to enforce:
//
//   source                                destination
//   Hello               ->
//                       <-                HelloReply           stage 0
//   Reserve             ->
//                       <-                Reserved | Refused   stage 1
//   RoundNote*          ->                                     stage 2 (pages go over the channels)
//   DropTransport       ->                                     only when a transport fails
//                       <-                TransportDropped
//   DeviceState*        ->
//   Paused, DeviceState*->                                     stage 3
//   ImageComplete       ->
//                       <-                Holding              stage 4: commitment
//   HandOver            ->                                     ownership passes with this message
//                       <-                Activated | HandedBack  stage 5
//
// Before HandOver either side may send Abort (the destination also Refused), and a lost connection
// means the same. After HandOver a lost connection leaves the source in doubt: it asks with Settle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/guest_description.h"
#include "transport/page_channel.h"

namespace ramferry {

// Versions of the protocol this build speaks; N and N-1 are accepted once there is a second one.
inline constexpr uint32_t kProtocolVersion = 1;
inline constexpr uint32_t kOldestProtocolVersion = 1;

struct Hello {
  uint32_t oldest_version = kOldestProtocolVersion;
  uint32_t newest_version = kProtocolVersion;
  std::string software;      // e.g. "ramferry 0.1.0"
  std::string host;          // as the sender calls itself; the certificate says who it is
  std::string boot_id;       // of the sender's kernel: equal boot ids mean one machine
  std::string migration_id;  // UUID, chosen by the source
};
struct HelloReply {
  uint32_t version = kProtocolVersion;
  std::string software;
  std::string host;
  std::string boot_id;
};
struct Reserve {
  GuestDescription guest;
  uint32_t channels = 1;                // page channels wanted, 1 to 64
  std::vector<std::string> transports;  // in order of preference
  // For each channel the region that it brings most of at first; empty: not said.
  std::vector<uint32_t> channel_regions;
};
struct Reserved {
  std::vector<ChannelOffer> offers;  // one for each transport the destination can serve
};
struct Refused {
  std::vector<std::string> reasons;  // each with what to change
};
struct RoundNote {
  uint32_t round = 0;  // from 1
  PageCount pages;     // sent in it
  PageCount dirty;     // dirty at its end
};
// The channels of this transport have failed; the migration goes on over another one that was
// offered. Nothing may land by the old ones once TransportDropped has been sent: what they still
// had under way could come after, and over, what is sent again.
struct DropTransport {
  std::string transport;  // as in ChannelOffer
  // The source has another way to take the same offer: it asks for a new one, with new tokens.
  bool offer_again = false;
};
struct TransportDropped {
  std::string transport;
  std::vector<ChannelOffer> offers;  // the new one; empty: not asked for, or not possible
};
struct DeviceState {
  std::vector<std::byte> bytes;  // at most kMaxDeviceStateChunk
};
inline constexpr size_t kMaxDeviceStateChunk = 256 * 1024;
struct Paused {};
// A digest of one slice of the source's memory as it stopped, for --verify: SHA-256.
struct SliceDigest {
  Slice slice;
  std::string sha256;  // 32 bytes
};
struct ImageComplete {
  uint64_t device_state_bytes = 0;   // sent in all DeviceState messages
  std::vector<SliceDigest> digests;  // empty: not asked to verify
};
struct Holding {
  double device_state_ms = 0;  // to load it
  bool verified = false;       // digests were given and every one matched
};
struct HandOver {};
struct Activated {
  double resume_ms = 0;  // from the arrival of HandOver to the running guest
};
struct HandedBack {  // the guest never ran here and never will: the source owns it again
  std::string reason;
};
struct Abort {
  std::string reason;
};

using ControlMessage = std::variant<Hello, HelloReply, Reserve, Reserved, Refused, RoundNote,
                                    DeviceState, Paused, ImageComplete, Holding, HandOver,
                                    Activated, HandedBack, Abort, DropTransport, TransportDropped>;

// The message's name, for errors and logs.
[[nodiscard]] const char* NameOf(const ControlMessage& message);

class ControlChannel {
 public:
  virtual ~ControlChannel() = default;

  // Queues the message and returns once it is on its way; thread-safe. Unavailable when the
  // connection is known to be lost. OK does not mean that the peer has it.
  [[nodiscard]] virtual absl::Status Send(const ControlMessage& message) = 0;

  // The next message. DeadlineExceeded: none came in time. Unavailable: the connection is lost
  // (keepalives notice a silent peer within seconds). InvalidArgument: the peer sent nonsense.
  [[nodiscard]] virtual absl::StatusOr<ControlMessage> Receive(Deadline deadline) = 0;

  // Who the peer proved to be (certificate name), and its numeric address; for logs and channels.
  [[nodiscard]] virtual const std::string& peer_name() const = 0;
  [[nodiscard]] virtual const std::string& peer_address() const = 0;

  // Makes calls under way in other threads fail with Unavailable. Thread-safe, idempotent.
  virtual void Close() = 0;
};

// What a destination answers when asked about a migration afterwards (docs/handover.md).
enum class Verdict {
  kUnknown,    // no record of it: a person must decide
  kUndecided,  // it is still under way
  kOwned,      // the guest is the destination's
  kReleased,   // the destination does not have it and never will: the source may run it
};

}  // namespace ramferry
