// What a person may choose about a migration, with the defaults.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/cpu_set.h"
#include "base/units.h"

namespace ramferry {

// What to do with a guest whose predicted downtime stays over the target.
enum class NotConverging {
  kGiveUp,      // roll back: the guest stays where it is
  kStopAnyway,  // stop it, whatever the downtime will be
  kWait,        // go on with rounds until it writes less, for as long as that takes
  kThrottle,    // take CPU time from it until its pages can be sent as fast as it writes them
};

// What saves bytes and downtime; docs/policy.md shows how much each does.
struct Mechanisms {
  bool skip = true;     // pages that are dirty again when their turn comes are not sent
  bool hold = true;     // pages dirty in several passes running wait until they cool
  bool instant = true;  // the moment of the switch-over is chosen
};

struct MigrationOptions {
  // Stop-and-copy begins when the predicted downtime is at most this.
  std::chrono::milliseconds downtime_target{300};
  // Pre-copy rounds before not_converging decides. At least 1.
  uint32_t max_rounds = 30;
  NotConverging not_converging = NotConverging::kGiveUp;
  // Workers, each with a page channel of its own: 1 to 64; 0: by the number of CPUs.
  uint32_t workers = 0;
  // The CPUs that they may run on; empty: those the rules give (placement/usable_cpus.h).
  CpuSet cpus;
  // Bytes a second over all channels during pre-copy; 0: no limit. Stop-and-copy has none.
  ByteCount bandwidth;
  // Of the first round; the later ones follow what the guest writes, up to `bandwidth`
  // (policy/rate_policy.h). 0: all rounds go at `bandwidth`.
  ByteCount least_bandwidth;
  // How far over that. 0: by the rule.
  ByteCount bandwidth_step;
  // What can be switched off one by one, for benchmarks and tests.
  Mechanisms mechanisms;
  // Compare the whole memory on both sides after the last page, while the guest is stopped.
  bool verify = false;
  // How long the peer may take over an answer before it counts as lost.
  std::chrono::milliseconds answer_time{30'000};
  // How long the source asks by itself when the answer to its ownership message was lost.
  std::chrono::milliseconds settle_time{30'000};
};

// Workers for options.workers == 0: half the CPUs this process may use (the guest needs the
// others), at least 1, at most 8.
[[nodiscard]] uint32_t DefaultWorkers();

}  // namespace ramferry
