// Finishes or undoes what a killed ramferry left behind, as its journal says (docs/handover.md).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/commands.h"
#include "cli/settings.h"
#include "engine/journal.h"

namespace ramferry {

// What an entry means, in plain words: for `ramferry status`.
[[nodiscard]] std::string Explain(const JournalEntry& entry);

// Settles one entry whose writer is dead and removes it (or keeps it, as the verdict for the other
// side). Returns what was done, in plain words. FailedPrecondition: it cannot be settled this way
// now, with what to do.
[[nodiscard]] absl::StatusOr<std::string> SettleEntry(const JournalEntry& entry,
                                                      Resolution resolution,
                                                      const Settings& settings,
                                                      const Journal& journal);

// Whether a damaged entry may be about this guest: it names it, or none.
[[nodiscard]] bool MayConcern(const DamagedEntry& damaged, const std::string& locator);

// What a ramferry that was killed over this very guest left, settled before another begins. Says so
// on standard error. FailedPrecondition: one is still at work on it, or a damaged entry may be
// about it.
[[nodiscard]] absl::Status SettleLeftovers(const std::string& locator, const Settings& settings,
                                           const Journal& journal);

// Whether this guest was handed over, and nobody knows what became of it.
[[nodiscard]] bool IsInDoubt(const std::string& locator, const Journal& journal);

}  // namespace ramferry
