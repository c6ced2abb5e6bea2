// `ramferry status` and `ramferry resolve`: what the journal of this host says, and settling it.
#include "base/status.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/recovery.h"
#include "cli/say.h"
#include "engine/journal.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

absl::StatusOr<JournalEntry> FindEntry(const Journal& journal, const std::string& id) {
  ASSIGN_OR_RETURN(const auto entries, journal.ReadAll());
  const JournalEntry* found = nullptr;
  for (const JournalEntry& entry : entries) {
    if (!entry.migration_id.starts_with(id)) continue;
    if (found != nullptr) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is the beginning of several migration ids", id));
    }
    found = &entry;
  }
  if (found == nullptr || id.empty()) {
    return absl::NotFoundError(
        fmt::format("no migration '{}' is known on this host: `ramferry status` lists them", id));
  }
  return *found;
}

}  // namespace

int StatusCommand(const Settings& settings) {
  const auto journal = Journal::Open(settings.state_dir);
  const auto entries = journal.ok() ? journal->ReadAll() : journal.status();
  if (!entries.ok()) {
    Tell("ramferry: {}\n", Message(entries.status()));
    return kExitError;
  }
  if (entries->empty()) Say("no migration is under way or unsettled on this host\n");
  for (const JournalEntry& entry : *entries) {
    Say("{}  {} {} {}  {}: {}\n", entry.migration_id, entry.guest,
        entry.role == Role::kSource ? "to" : "from", entry.peer, NameOf(entry.phase),
        Explain(entry));
  }
  return kExitOk;
}

int ResolveCommand(const std::string& migration_id, Resolution resolution,
                   const Settings& settings) {
  const auto journal = Journal::Open(settings.state_dir);
  absl::Status status = journal.status();
  if (status.ok()) {
    const auto entry = FindEntry(*journal, migration_id);
    status = entry.status();
    if (status.ok()) {
      const auto done = SettleEntry(*entry, resolution, settings, *journal);
      if (done.ok()) {
        Say("{}\n", *done);
        return kExitOk;
      }
      status = done.status();
    }
  }
  Tell("ramferry: {}\n", Message(status));
  return absl::IsFailedPrecondition(status) ? kExitInDoubt : kExitError;
}

}  // namespace ramferry
