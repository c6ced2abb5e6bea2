// A page channel carries guest memory to the other host: one-sided on every transport.
//
// The sender names where in the peer's guest memory bytes belong; nobody on the other side decides
// anything. One worker owns one channel: none of these calls is thread-safe, and none takes a lock.
//
//   std::vector<PageWrite> batch = {{.region = 0, .offset = 8192, .bytes = page, .length = 4096}};
//   RETURN_IF_ERROR(channel->Write(batch));
//   RETURN_IF_ERROR(channel->Flush(In(10s)));   // now the peer's CPU sees the page
//
// After any error a channel is dead: every later call fails with the same status.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cpu_set.h"
#include "base/deadline.h"
#include "base/guest_memory.h"
#include "base/page_run.h"

namespace ramferry {

// `length` bytes at `bytes` go to `offset` of the peer's region. Offset and length are multiples of
// 4096. The bytes must stay mapped until Flush returns; they may change meanwhile (the guest runs):
// what arrives is then any mixture, and the engine sends the page again because it is dirty.
struct PageWrite {
  RegionId region = 0;
  uint64_t offset = 0;
  const std::byte* bytes = nullptr;
  uint64_t length = 0;
};

// `length` bytes from `offset` of the peer's region become zero.
struct PageZero {
  RegionId region = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
};

struct ChannelCapabilities {
  std::string transport;            // "tcp", "rdma", "dpdk"; encrypted says the rest
  ByteCount largest_write;          // of one PageWrite
  size_t batch = 64;                // PageWrites a call that the channel handles best
  bool one_sided = false;           // the peer's CPU takes no part in a write
  bool needs_registration = false;  // source memory must be registered first
  bool encrypted = false;
  std::string path;  // which way it goes, for people; empty: as any connection
};

// How a channel waits for its peer, where it has the choice.
enum class Waiting {
  kSleep,  // the CPU is for others: a rate limit leaves time
  kAdapt,  // looks for a moment, then sleeps
  kPoll,   // the guest stands still: every wake-up would add to its downtime
};

struct ChannelStats {
  ByteCount payload;  // page bytes written
  ByteCount wire;     // all bytes handed to the network, headers included
  uint64_t full = 0;  // times that a write had to wait, because too much was under way
};

class PageChannel {
 public:
  virtual ~PageChannel() = default;

  [[nodiscard]] virtual const ChannelCapabilities& capabilities() const = 0;

  [[nodiscard]] virtual absl::Status Write(std::span<const PageWrite> writes) = 0;
  [[nodiscard]] virtual absl::Status WriteZeros(std::span<const PageZero> zeros) = 0;

  // Returns when everything written before is visible to the destination's CPU: written there, not
  // only sent. DeadlineExceeded when the peer did not confirm in time.
  [[nodiscard]] virtual absl::Status Flush(Deadline deadline) = 0;

  [[nodiscard]] virtual ChannelStats stats() const = 0;

  // kAdapt until told otherwise.
  virtual void SetWaiting(Waiting /*waiting*/) {}

  // Makes a call that is under way in another thread fail soon. The one call that is thread-safe.
  virtual void Abort() = 0;
};

// Where one end of a channel is on its host. Hints: all of them may be empty, and a transport that
// can make no use of one leaves it.
struct ChannelPlace {
  CpuSet cpus;           // where the thread that serves this end is bound to; empty: it is not
  int memory_node = -1;  // the node of most of the guest memory that it handles; -1: unknown
  std::string nic;       // the network device that it should use, by the kernel's name; "": any
};

inline constexpr size_t kMostOtherAddresses = 15;  // in an offer

// How the destination tells the source to reach it; travels over the control channel only.
struct ChannelOffer {
  std::string transport;  // "tcp", "tcp-tls" (the same encrypted), "rdma"
  std::string address;    // numeric host; empty: the address of the control channel
  // All addresses of the host's devices that listen (rails), with the same port and tokens, at most
  // kMostOtherAddresses; empty: `address` is the only one. When `address` is empty and the control
  // channel's is not among these, no device may listen there. A source may leave them out.
  std::vector<std::string> other_addresses;
  uint16_t port = 0;
  bool encrypted = false;
  std::vector<std::string> tokens;  // one a channel, 32 random bytes each, usable once
};

// The destination's end of all channels of one migration: lands what arrives in `regions`.
class ChannelReceiver {
 public:
  virtual ~ChannelReceiver() = default;

  [[nodiscard]] virtual const ChannelOffer& offer() const = 0;
  // OK while all is well; the first error of any channel afterwards (also a peer that went away).
  [[nodiscard]] virtual absl::Status status() const = 0;
  [[nodiscard]] virtual ChannelStats stats() const = 0;
  // Accepts and writes nothing any more; returns when no thread touches the regions. Idempotent.
  virtual void Stop() = 0;
};

// What the engine is given to open channels with, so that it knows no transport by name.
class ChannelConnector {
 public:
  virtual ~ChannelConnector() = default;
  // What it sends over, by name.
  [[nodiscard]] virtual std::string transport() const = 0;
  // Which offers it can take, the best first: ChannelOffer::transport.
  [[nodiscard]] virtual std::vector<std::string> takes() const { return {transport()}; }
  // One channel for each token of the offer, all connected and accepted by the peer.
  [[nodiscard]] virtual absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> Connect(
      const ChannelOffer& offer, std::span<const MappedRegion> source, Deadline deadline) = 0;

  // The network devices of this host that lead to an offer, by the kernel's names; empty: unknown.
  [[nodiscard]] virtual std::vector<std::string> NicsTo(const ChannelOffer& /*offer*/) {
    return {};
  }
  // What its devices counted since it was made, by name; empty: they count nothing.
  [[nodiscard]] virtual std::vector<std::pair<std::string, uint64_t>> counters() const {
    return {};
  }
  // Before Connect: the place of each channel, in the order of the offer's tokens. What a channel
  // allocates is then on the node of its worker, and its device the one that was planned, if that
  // leads there.
  virtual void PlaceChannels(std::vector<ChannelPlace> /*places*/) {}  // NOLINT: to be kept
};

class ChannelListener {
 public:
  virtual ~ChannelListener() = default;
  [[nodiscard]] virtual std::string transport() const = 0;
  // Ready to take a connection for each of `channels`; they land in `regions`, which must outlive
  // the receiver. The n-th token of the offer is that of the n-th place.
  [[nodiscard]] virtual absl::StatusOr<std::unique_ptr<ChannelReceiver>> Expect(
      std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels) = 0;
  // The same for channels without places.
  [[nodiscard]] absl::StatusOr<std::unique_ptr<ChannelReceiver>> Expect(
      std::span<const MappedRegion> regions, size_t channels) {
    return Expect(regions, std::vector<ChannelPlace>(channels));
  }
};

}  // namespace ramferry
