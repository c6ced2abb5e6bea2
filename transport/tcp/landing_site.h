// The destination's side of all page channels of one migration: a thread for each, which receives,
// checks (frame_parser.h) and lands (landing.h) what its source sends. A thread runs where its
// channel's place says, and what it counts is on a cache line of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "base/guest_memory.h"
#include "base/unique_fd.h"
#include "transport/page_channel.h"
#include "transport/tcp/token_registry.h"

namespace ramferry::tcp {

// Thread-safe.
class LandingSite final : public TokenHolder {
 public:
  // The memory behind `regions` must stay until Stop() has returned.
  LandingSite(std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels,
              std::chrono::milliseconds stall_timeout);
  ~LandingSite() override;

  void Deliver(std::unique_ptr<ByteStream> stream, const std::string& peer, size_t index) override;

  // As ChannelReceiver says.
  [[nodiscard]] absl::Status status() const;
  [[nodiscard]] ChannelStats stats() const;
  void Stop();

 private:
  // What one thread writes all the time, and others read now and then.
  struct alignas(64) Counters {
    std::atomic<uint64_t> payload{0};
    std::atomic<uint64_t> wire{0};
  };

  void Serve(ByteStream& stream, const std::string& peer, size_t index);
  absl::Status Receive(ByteStream& stream, Counters& counters);
  absl::Status Borrow(ByteStream& stream, Counters& counters);
  void GiveUp(ByteStream& stream, const absl::Status& why) const;

  const std::vector<MappedRegion> regions_;
  const std::vector<ChannelPlace> places_;
  const std::chrono::milliseconds stall_timeout_;
  UniqueFd stop_event_;  // readable once stopped
  std::atomic<bool> stopped_{false};
  std::vector<Counters> counters_;  // one a channel

  mutable std::mutex mutex_;
  absl::Status error_;                // the first; guarded by mutex_
  std::vector<std::thread> threads_;  // guarded by mutex_
};

}  // namespace ramferry::tcp
