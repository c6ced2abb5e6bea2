#include "engine/policy/throttle_policy.h"

#include <algorithm>

namespace ramferry {
namespace {

constexpr double kWanted = 0.75;  // of what is sent
// One step never does more, nor less, than this: the figures of one round are no certainty. A
// working set that was rewritten more than once in a round wrote more than could be counted.
constexpr double kStrongest = 0.3;
constexpr double kWeakest = 0.8;

}  // namespace

double ThrottlePolicy::Slower(double dirtied, double sent) {
  const double factor = dirtied > 0 ? kWanted * sent / dirtied : kWeakest;
  share_ = std::max(kLeastShare, share_ * std::clamp(factor, kStrongest, kWeakest));
  return share_;
}

}  // namespace ramferry
