#include "engine/policy/rate_policy.h"

#include <algorithm>

namespace ramferry {

ByteCount DefaultStep(const RateLimits& limits) {
  const ByteCount span = limits.most > limits.least ? limits.most - limits.least : ByteCount(0);
  return std::max(Mbit(50), ByteCount(span.value() / 8));
}

RatePolicy::RatePolicy(const RateLimits& limits) : limits_(limits) {
  if (limits_.step.value() == 0) limits_.step = DefaultStep(limits_);
  if (limits_.most.value() != 0) limits_.least = std::min(limits_.least, limits_.most);
  rate_ = wanted_ = limits_.least.value() != 0 ? limits_.least : limits_.most;
}

bool RatePolicy::at_most() const {
  return limits_.least.value() == 0 || (limits_.most.value() != 0 && wanted_ >= limits_.most);
}

void RatePolicy::AddRound(const RoundReport& round) {
  if (limits_.least.value() == 0) return;
  // A round of a few microseconds may claim any rate: what is beyond 2^50 bytes a second is cut.
  constexpr double kMost = static_cast<double>(uint64_t{1} << 50);
  const double dirtied = std::clamp(round.dirty_rate * kPageBytes, 0.0, kMost);
  wanted_ = ByteCount(static_cast<uint64_t>(dirtied)) + limits_.step;
  rate_ = std::max(wanted_, limits_.least);
  if (limits_.most.value() != 0) rate_ = std::min(rate_, limits_.most);
}

}  // namespace ramferry
