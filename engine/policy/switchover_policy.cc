#include "engine/policy/switchover_policy.h"

#include <algorithm>

namespace ramferry {
namespace {

// Pages that add less than this to what stopping takes anyway are not worth another round.
constexpr double kTrifle = 0.1;
constexpr double kWorthARound = 0.75;
// So far over its average a guest is in a burst.
constexpr double kBurst = 1.5;
// And this part of the highest is a low point.
constexpr double kLow = 0.5;
constexpr double kLongestWatchMs = 500;

}  // namespace

SwitchoverStep SwitchoverPolicy::Decide(const SwitchoverLook& look) {
  const double pages_ms = std::max(look.predicted_ms - look.fixed_ms, 0.0);
  const bool first = first_;
  first_ = false;
  if (!first) spent_ += look.bytes;
  if (pages_ms <= look.fixed_ms * kTrifle || spent_ >= budget_) return SwitchoverStep::kStop;
  if (first || pages_ms <= best_ms_ * kWorthARound) {
    best_ms_ = pages_ms;
    return SwitchoverStep::kRound;
  }
  best_ms_ = std::min(best_ms_, pages_ms);
  watched_ms_ += look.ms;
  highest_rate_ = std::max(highest_rate_, look.dirty_rate);
  if (look.dirty_rate <= average_rate_ * kBurst || look.dirty_rate <= highest_rate_ * kLow ||
      watched_ms_ >= kLongestWatchMs) {
    return SwitchoverStep::kStop;
  }
  return SwitchoverStep::kWatch;
}

}  // namespace ramferry
