// Whether pre-copy will ever get under the downtime target, and what to do if not.
//
// A round gains when it brings the predicted downtime a tenth under the best so far. A guest does
// not converge when, as fast as may be sent, three rounds running and a second of them gained
// nothing: its dirty set has reached the size at which it writes as fast as it is sent. A moment
// that happens to be good enough still ends pre-copy, whatever was said before.
//
//   ConvergencePolicy policy({.target_ms = 300, .max_rounds = 30, .choice = NotConverging::kWait});
//   ConvergenceDecision decision = policy.Decide(report, rates.at_most());
//
// Pure: time is what the rounds took. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "engine/options.h"
#include "engine/policy/throttle_policy.h"
#include "engine/report.h"

namespace ramferry {

struct ConvergenceLimits {
  double target_ms = 300;
  uint32_t max_rounds = 30;  // not of NotConverging::kWait
  NotConverging choice = NotConverging::kGiveUp;
};

enum class NextStep {
  kRound,       // one more
  kStop,        // the target is met
  kStopAnyway,  // it is not, and will not be; the user wants the guest stopped all the same
  kThrottle,    // one more, with the guest's CPUs at `cpu_share`
  kGiveUp,      // the guest stays where it is
};

struct ConvergenceDecision {
  NextStep step = NextStep::kRound;
  bool detected = false;  // just now, for the first time: worth telling
  double cpu_share = 1;   // of each virtual CPU's time; below 1: throttled
};

class ConvergencePolicy {
 public:
  explicit ConvergencePolicy(const ConvergenceLimits& limits) : limits_(limits) {}

  // After each round, with its predicted downtime. `at_most`: the next round cannot go faster than
  // this one (RatePolicy::at_most).
  [[nodiscard]] ConvergenceDecision Decide(const RoundReport& round, bool at_most);

  [[nodiscard]] bool converges() const { return converges_; }
  [[nodiscard]] const ThrottlePolicy& throttle() const { return throttle_; }

 private:
  [[nodiscard]] bool Stalls(const RoundReport& round, bool at_most);

  ConvergenceLimits limits_;
  ThrottlePolicy throttle_;
  double best_ms_ = 0;        // prediction; 0: no round yet
  uint32_t idle_rounds_ = 0;  // since one gained
  double idle_ms_ = 0;
  bool converges_ = true;
};

// The numbers behind "does not converge", for people: what the guest writes, what is sent, what
// stopping it now would take, and the target.
[[nodiscard]] std::string DescribeDirtying(const RoundReport& round, double target_ms);

}  // namespace ramferry
