// The six stages of a migration (Clark et al., NSDI 2005, section 3.1) as a machine that refuses an
// illegal order, and the rule about who owns the guest.
//
//   pre-migration -> reservation -> pre-copy -> stop-and-copy -> commitment -> activation -> done
//        |               |             |             |               |            |   |
//        +---------------+-------------+-------------+---------------+            |   +-> in doubt
//                                      |                                          |
//                                 rolled back <---- handed back, in writing ------+
//
// The source may resume the guest by itself in every stage up to commitment. Entering activation
// means that the ownership message is about to leave: from then on it may resume only when the
// destination has said in so many words that it never ran the guest (docs/handover.md).
#pragma once

#include <array>
#include <atomic>

#include "absl/status/status.h"
#include "base/deadline.h"

namespace ramferry {

enum class Stage {
  kPreMigration,
  kReservation,
  kPreCopy,
  kStopAndCopy,
  kCommitment,
  kActivation,
  kDone,        // the guest is the destination's
  kRolledBack,  // the guest is the source's, as before
  kInDoubt,     // the ownership message left and its answer was lost: stopped here
};
inline constexpr size_t kStages = 9;

[[nodiscard]] const char* NameOf(Stage stage);
// Whether the source may go from one to the other.
[[nodiscard]] bool MayFollow(Stage from, Stage to);
// Whether the source may resume the guest on its own in this stage.
[[nodiscard]] bool SourceOwns(Stage stage);

// Where one migration is. Enter() from one thread; stage() from any.
class StageMachine {
 public:
  StageMachine() { entered_[0] = Clock::now(); }

  [[nodiscard]] Stage stage() const { return stage_.load(std::memory_order_acquire); }
  // InternalError for a step that MayFollow forbids; nothing has changed then.
  [[nodiscard]] absl::Status Enter(Stage next);
  // When a stage was entered; the epoch if it never was.
  [[nodiscard]] Deadline entered(Stage stage) const { return entered_[static_cast<size_t>(stage)]; }

 private:
  std::atomic<Stage> stage_{Stage::kPreMigration};
  std::array<Deadline, kStages> entered_{};
};

}  // namespace ramferry
