// `ramferry status` and `ramferry resolve`: what the journal of this host says, and settling it.
#include <vector>

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
  ASSIGN_OR_RETURN(const JournalContents known, journal.ReadAll());
  std::vector<absl::StatusOr<JournalEntry>> found;
  for (const JournalEntry& entry : known.entries) {
    if (entry.migration_id.starts_with(id)) found.emplace_back(entry);
  }
  for (const DamagedEntry& damaged : known.damaged) {
    if (damaged.migration_id.starts_with(id)) {
      found.emplace_back(absl::FailedPreconditionError(Describe(damaged)));
    } else {
      Tell("{}\n", Describe(damaged));
    }
  }
  if (found.empty() || id.empty()) {
    return absl::NotFoundError(
        fmt::format("no migration '{}' is known on this host: `ramferry status` lists them", id));
  }
  if (found.size() > 1) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is the beginning of several migration ids", id));
  }
  return found.front();
}

}  // namespace

int StatusCommand(const Settings& settings) {
  const auto journal = Journal::Open(settings.state_dir);
  const auto known = journal.ok() ? journal->ReadAll() : journal.status();
  if (!known.ok()) {
    Tell("ramferry: {}\n", Message(known.status()));
    return kExitError;
  }
  if (known->empty()) Say("no migration is under way or unsettled on this host\n");
  for (const JournalEntry& entry : known->entries) {
    Say("{}  {} {} {}  {}: {}\n", entry.migration_id, entry.guest,
        entry.role == Role::kSource ? "to" : "from", entry.peer, NameOf(entry.phase),
        Explain(entry));
  }
  for (const DamagedEntry& damaged : known->damaged) {
    Say("{}  DAMAGED: {}\n", damaged.migration_id, Describe(damaged));
  }
  return known->damaged.empty() ? kExitOk : kExitError;
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
