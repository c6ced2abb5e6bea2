// A rate limit in bytes per second that all workers of a migration share.
//
//   TokenBucket bucket(MiB(100));                         // bytes a second
//   RETURN_IF_ERROR(bucket.Acquire(MiB(1), &cancel));     // before sending 1 MiB
//
// Bytes are granted in the order of asking. Whoever asks for more than there is waits until its
// turn is earned; what nobody asks for is saved up for 10 ms of the rate, no longer. Thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "absl/status/status.h"
#include "base/cancellation.h"
#include "base/deadline.h"
#include "base/units.h"

namespace ramferry {

class TokenBucket {
 public:
  // Bytes a second; 0: unlimited.
  explicit TokenBucket(ByteCount rate = ByteCount(0), Deadline now = Clock::now());

  // Takes effect at once, also for those who wait already.
  void SetRate(ByteCount rate, Deadline now = Clock::now());
  [[nodiscard]] ByteCount rate() const { return ByteCount(rate_.load(std::memory_order_relaxed)); }

  // Sleeps until `bytes` may be sent. Cancelled (with the reason) when `cancel` asks for it
  // meanwhile; null: nobody does. Without a limit it costs one load.
  [[nodiscard]] absl::Status Acquire(ByteCount bytes, const Cancellation* cancel = nullptr) {
    if (rate_.load(std::memory_order_relaxed) == 0) return absl::OkStatus();
    return AcquireLimited(bytes, cancel);
  }

  // The two halves of Acquire, without sleeping: a place in the queue for `bytes`, and how long it
  // still takes from `now` until it is earned, if the rate stays.
  struct Ticket {
    double position = 0;
  };
  [[nodiscard]] Ticket Take(ByteCount bytes, Deadline now);
  [[nodiscard]] Clock::duration TimeUntil(Ticket ticket, Deadline now);

 private:
  absl::Status AcquireLimited(ByteCount bytes, const Cancellation* cancel);
  void EarnUntil(Deadline now);
  Clock::duration TimeLeft(Ticket ticket) const;

  std::atomic<uint64_t> rate_;
  std::mutex mutex_;
  std::condition_variable rate_changed_;
  // Bytes since the beginning; guarded by mutex_. Doubles: fractions of a byte must not be lost at
  // low rates, and 2^53 bytes are enough.
  double taken_ = 0;
  double earned_ = 0;  // never more than taken_ plus what may be saved up
  Deadline earned_at_;
};

}  // namespace ramferry
