// How fast the next round of pre-copy sends: slowly while that is enough, so that guest and network
// feel little of it, and faster when the guest writes faster.
//
// Clark et al., NSDI 2005, section 5.4 ("dynamic rate-limiting"): the first round goes at the
// minimum, each later one at the rate at which the guest wrote pages during the one before, plus a
// constant, within the minimum and the maximum. Their constant was 50 Mbit/s, their example went
// from 100 to 500.
//
//   RatePolicy policy({.least = Mbit(100), .step = Mbit(50), .most = Mbit(500)});
//   bucket.SetRate(policy.rate());    // of round 1
//   policy.AddRound(report);          // after each round
//   bucket.SetRate(policy.rate());    // of the next
//
// Pure: no clock, no input or output. Not thread-safe.
#pragma once

#include <cstdint>

#include "base/units.h"
#include "engine/report.h"

namespace ramferry {

// 10^6 bits a second, as networks count.
constexpr ByteCount Mbit(uint64_t n) {
  return ByteCount(n * 1'000'000 / 8);
}

// Bytes a second.
struct RateLimits {
  ByteCount least;  // of the first round; 0: every round goes at `most`
  ByteCount step;   // over the rate at which the guest wrote; 0: by DefaultStep
  ByteCount most;   // 0: no limit
};

// An eighth of the way from `least` to `most`, and at least 50 Mbit/s: the paper's constant is a
// ninth of its own range, and would take hundreds of rounds to cross that of today's networks.
[[nodiscard]] ByteCount DefaultStep(const RateLimits& limits);

class RatePolicy {
 public:
  explicit RatePolicy(const RateLimits& limits);

  // Of the next round, in bytes a second; 0: no limit.
  [[nodiscard]] ByteCount rate() const { return rate_; }
  // What the guest's writing asks for, before the maximum was applied.
  [[nodiscard]] ByteCount wanted() const { return wanted_; }
  // The next round goes as fast as it may ever go: if that is not enough, nothing here will be.
  // (The paper stops the guest at this point; here that is for ConvergencePolicy to judge.)
  [[nodiscard]] bool at_most() const;

  // A round has ended: its dirty_rate counts.
  void AddRound(const RoundReport& round);

 private:
  RateLimits limits_;
  ByteCount rate_;
  ByteCount wanted_;
};

}  // namespace ramferry
