// Which of the moments that meet the downtime target is taken for the switch-over.
//
// At the end of a long round, all that the guest wrote during it is dirty. First, short rounds
// bring that down, as long as each takes off a quarter and they cost little. Then, where the guest
// writes faster just now than it did on the whole, it works in bursts and this is one of them: it
// is watched for half a second, and stopped at a low point.
//
//   SwitchoverPolicy policy(report.dirty_rate, bytes_so_far);
//   for (;;) {
//     switch (policy.Decide(look)) { ... }
//   }
//
// Pure: time is what looks say. One object for one switch-over.
#pragma once

#include <cstdint>

#include "base/units.h"

namespace ramferry {

// What a look at the dirty pages after a round shows, when the target is met.
struct SwitchoverLook {
  double predicted_ms = 0;  // downtime, if the guest is stopped now
  double fixed_ms = 0;      // of that: what does not depend on pages
  double dirty_rate = 0;    // pages a second that the guest wrote during the round
  ByteCount bytes;          // that the round sent
  double ms = 0;            // since the look before
};

enum class SwitchoverStep {
  kStop,   // now is as good as any
  kRound,  // send what is dirty at once, then look again
  kWatch,  // the same, after a moment (kWatchPauseMs)
};

class SwitchoverPolicy {
 public:
  static constexpr double kWatchPauseMs = 10;

  // `average_rate`: pages a second that the guest wrote over the whole of pre-copy. `sent`: by its
  // rounds; the short ones may cost an eighth of that.
  SwitchoverPolicy(double average_rate, ByteCount sent)
      : average_rate_(average_rate), budget_(sent.value() / 8) {}

  [[nodiscard]] SwitchoverStep Decide(const SwitchoverLook& look);

 private:
  double average_rate_;
  ByteCount budget_;
  ByteCount spent_;
  bool first_ = true;
  double best_ms_ = 0;  // for pages
  double watched_ms_ = 0;
  double highest_rate_ = 0;  // while it was watched
};

}  // namespace ramferry
