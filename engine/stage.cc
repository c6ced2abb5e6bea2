#include "engine/stage.h"

#include "fmt/format.h"

namespace ramferry {

const char* NameOf(Stage stage) {
  static constexpr std::array<const char*, kStages> kNames = {
      "pre-migration", "reservation", "pre-copy",    "stop-and-copy", "commitment",
      "activation",    "done",        "rolled back", "in doubt"};
  return kNames[static_cast<size_t>(stage)];
}

bool SourceOwns(Stage stage) {
  return stage <= Stage::kCommitment || stage == Stage::kRolledBack;
}

bool MayFollow(Stage from, Stage to) {
  switch (to) {
    case Stage::kPreMigration:
      return false;
    case Stage::kRolledBack:  // from activation and from doubt only on the destination's word
      return from < Stage::kDone || from == Stage::kInDoubt;
    case Stage::kInDoubt:
      return from == Stage::kActivation;
    case Stage::kDone:
      return from == Stage::kActivation || from == Stage::kInDoubt;
    default:
      return from < Stage::kActivation && static_cast<int>(to) == static_cast<int>(from) + 1;
  }
}

absl::Status StageMachine::Enter(Stage next) {
  const Stage now = stage();
  if (!MayFollow(now, next)) {
    return absl::InternalError(
        fmt::format("a migration cannot go from {} to {}", NameOf(now), NameOf(next)));
  }
  entered_[static_cast<size_t>(next)] = Clock::now();
  stage_.store(next, std::memory_order_release);
  return absl::OkStatus();
}

}  // namespace ramferry
