#include "engine/policy/convergence_policy.h"

#include <algorithm>

#include "fmt/format.h"

namespace ramferry {
namespace {

constexpr double kGain = 0.9;
// A throttled guest should write three quarters of what is sent, so that each round leaves three
// quarters of what the one before did: if it is much more, the figures of the throttle were wrong.
constexpr double kGainThrottled = 0.85;
constexpr uint32_t kIdleRounds = 3;
// Rounds of some milliseconds say little: a guest may work in bursts.
constexpr double kIdleMs = 1000;

double SentBytesPerSecond(const RoundReport& round) {
  return round.ms > 0 ? static_cast<double>(round.bytes.value()) * 1000 / round.ms : 0;
}

}  // namespace

bool ConvergencePolicy::Stalls(const RoundReport& round, bool at_most) {
  const double gain = throttle_.share() < 1 ? kGainThrottled : kGain;
  const bool gains = best_ms_ == 0 || round.predicted_downtime_ms <= best_ms_ * gain;
  if (gains) best_ms_ = round.predicted_downtime_ms;
  if (gains || !at_most) {
    idle_rounds_ = 0;
    idle_ms_ = 0;
    return false;
  }
  ++idle_rounds_;
  idle_ms_ += round.ms;
  // Once throttled, a step that gains nothing is seen at once: the guest suffers meanwhile.
  if (throttle_.share() < 1) return true;
  return idle_rounds_ >= kIdleRounds && idle_ms_ >= kIdleMs;
}

ConvergenceDecision ConvergencePolicy::Decide(const RoundReport& round, bool at_most) {
  ConvergenceDecision decision{.cpu_share = throttle_.share()};
  if (round.predicted_downtime_ms <= limits_.target_ms) {
    decision.step = NextStep::kStop;
    return decision;
  }
  const bool out_of_rounds =
      round.number >= limits_.max_rounds && limits_.choice != NotConverging::kWait;
  const bool stalls = Stalls(round, at_most);
  if (!stalls && !out_of_rounds) return decision;
  decision.detected = converges_;
  converges_ = false;
  switch (limits_.choice) {
    case NotConverging::kWait:
      break;
    case NotConverging::kStopAnyway:
      decision.step = NextStep::kStopAnyway;
      break;
    case NotConverging::kGiveUp:
      decision.step = NextStep::kGiveUp;
      break;
    case NotConverging::kThrottle:
      if (out_of_rounds || throttle_.at_least()) {
        decision.step = NextStep::kGiveUp;
        break;
      }
      throttle_.Slower(round.dirty_rate * kPageBytes, SentBytesPerSecond(round));
      decision.step = NextStep::kThrottle;
      decision.cpu_share = throttle_.share();
      // From here on the slower guest is the measure.
      best_ms_ = round.predicted_downtime_ms;
      idle_rounds_ = 0;
      idle_ms_ = 0;
      break;
  }
  return decision;
}

std::string DescribeDirtying(const RoundReport& round, double target_ms) {
  constexpr double kMiB = 1 << 20;
  return fmt::format(
      "it writes {:.0f} pages ({:.1f} MiB) a second, {:.1f} MiB a second are sent, and after {} "
      "rounds stopping it would take about {:.0f} ms, over the target of {:.0f} ms",
      round.dirty_rate, round.dirty_rate * kPageBytes / kMiB, SentBytesPerSecond(round) / kMiB,
      round.number, round.predicted_downtime_ms, target_ms);
}

}  // namespace ramferry
