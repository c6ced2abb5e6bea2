#include "base/token_bucket.h"

#include <algorithm>
#include <chrono>

#include "base/status.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using Seconds = std::chrono::duration<double>;

constexpr Seconds kSavedUp = 10ms;
// How soon a cancellation is seen by whoever waits here.
constexpr auto kLookUp = 10ms;
// Longer waits are cut into pieces anyway; keeps the arithmetic in range.
constexpr Seconds kLongest = 1h;

}  // namespace

TokenBucket::TokenBucket(ByteCount rate, Deadline now) : rate_(rate.value()), earned_at_(now) {}

void TokenBucket::SetRate(ByteCount rate, Deadline now) {
  {
    const std::lock_guard lock(mutex_);
    EarnUntil(now);
    rate_.store(rate.value(), std::memory_order_relaxed);
    if (rate.value() == 0) earned_ = taken_;  // everyone may go, and nothing is owed later
  }
  rate_changed_.notify_all();
}

TokenBucket::Ticket TokenBucket::Take(ByteCount bytes, Deadline now) {
  const std::lock_guard lock(mutex_);
  EarnUntil(now);
  taken_ += static_cast<double>(bytes.value());
  return {taken_};
}

Clock::duration TokenBucket::TimeUntil(Ticket ticket, Deadline now) {
  const std::lock_guard lock(mutex_);
  EarnUntil(now);
  return TimeLeft(ticket);
}

absl::Status TokenBucket::AcquireLimited(ByteCount bytes, const Cancellation* cancel) {
  const Ticket ticket = Take(bytes, Clock::now());
  std::unique_lock lock(mutex_);
  while (true) {
    EarnUntil(Clock::now());
    const Clock::duration left = TimeLeft(ticket);
    if (left == Clock::duration::zero()) return absl::OkStatus();
    if (cancel != nullptr && cancel->requested()) return cancel->status();
    rate_changed_.wait_for(lock, std::min<Clock::duration>(left, kLookUp));
  }
}

void TokenBucket::EarnUntil(Deadline now) {
  if (now <= earned_at_) return;
  const auto rate = static_cast<double>(rate_.load(std::memory_order_relaxed));
  const double earned = earned_ + rate * Seconds(now - earned_at_).count();
  earned_ = std::min(earned, taken_ + rate * kSavedUp.count());
  earned_at_ = now;
}

Clock::duration TokenBucket::TimeLeft(Ticket ticket) const {
  const auto rate = static_cast<double>(rate_.load(std::memory_order_relaxed));
  // A thousandth of a byte forgives what was lost by rounding times to nanoseconds.
  const double missing = ticket.position - earned_;
  if (rate == 0 || missing <= 0.001) return Clock::duration::zero();
  return std::chrono::ceil<Clock::duration>(std::min(Seconds(missing / rate), kLongest));
}

}  // namespace ramferry
