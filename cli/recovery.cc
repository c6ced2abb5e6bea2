#include "cli/recovery.h"

#include <memory>

#include "base/status.h"
#include "cli/peer.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/qemu_destination.h"
#include "hypervisor-glue/qemu/qemu_source.h"

namespace ramferry {
namespace {

// "qemu:/run/x.qmp" -> "/run/x.qmp"; "" for another kind of guest.
std::string QmpPathOf(const std::string& locator) {
  constexpr std::string_view kPrefix = "qemu:";
  return locator.starts_with(kPrefix) ? locator.substr(kPrefix.size()) : "";
}

absl::StatusOr<std::string> TakeBack(const JournalEntry& entry, const Journal& journal) {
  auto guest = QemuSource::TakeUp(QmpPathOf(entry.locator), entry.undo, entry.running);
  if (SaysThatQemuHasEnded(guest.status())) {
    RETURN_IF_ERROR(journal.Remove(entry.migration_id, Role::kSource));
    return fmt::format("guest {} is gone: its QEMU has ended since", entry.guest);
  }
  RETURN_IF_ERROR(guest.status());
  RETURN_IF_ERROR((*guest)->RollBack());
  RETURN_IF_ERROR(journal.Remove(entry.migration_id, Role::kSource));
  return fmt::format("guest {} {} on this host, as before the migration", entry.guest,
                     entry.running ? "runs" : "is paused");
}

absl::StatusOr<std::string> LetGo(const JournalEntry& entry, const Journal& journal) {
  auto guest = QemuSource::TakeUp(QmpPathOf(entry.locator), entry.undo, entry.running);
  if (!guest.ok() && !SaysThatQemuHasEnded(guest.status())) return guest.status();
  if (guest.ok()) RETURN_IF_ERROR((*guest)->Commit());
  RETURN_IF_ERROR(journal.Remove(entry.migration_id, Role::kSource));
  return fmt::format("guest {} runs on {}; what was left of it here is removed", entry.guest,
                     entry.peer);
}

absl::StatusOr<std::string> SettleHandOver(const JournalEntry& entry, const Settings& settings,
                                           const Journal& journal) {
  ASSIGN_OR_RETURN(const ControlClientOptions peer, ReachPeer(entry.peer, settings));
  const auto verdict = AskVerdict(peer, entry.migration_id);
  if (!verdict.ok()) {
    return absl::FailedPreconditionError(fmt::format(
        "{} cannot be asked who owns guest {} ({}). It stays paused here. Try again when it can be "
        "reached; or, when you know: `ramferry resolve {} --run-here` if it does NOT run there and "
        "never will, `--discard-here` if it runs there",
        entry.peer, entry.guest, Message(verdict.status()), entry.migration_id));
  }
  absl::StatusOr<std::string> done = absl::FailedPreconditionError(
      fmt::format("{} does not know what became of guest {}: look whether it runs there, then "
                  "`ramferry resolve "
                  "{} --run-here` (it does not) or `--discard-here` (it does)",
                  entry.peer, entry.guest, entry.migration_id));
  if (*verdict == Verdict::kOwned) done = LetGo(entry, journal);
  if (*verdict == Verdict::kReleased) done = TakeBack(entry, journal);
  if (*verdict == Verdict::kUndecided) {
    done = absl::FailedPreconditionError(fmt::format(
        "{} is still at work on guest {}; ask again in a moment", entry.peer, entry.guest));
  }
  if (done.ok()) ConfirmVerdict(peer, entry.migration_id).IgnoreError();
  return done;
}

absl::StatusOr<std::string> SettleSource(const JournalEntry& entry, Resolution resolution,
                                         const Settings& settings, const Journal& journal) {
  switch (entry.phase) {
    case Phase::kTracking:
    case Phase::kPausing:
    case Phase::kReturned:
      if (resolution == Resolution::kDiscardHere) {
        return absl::FailedPreconditionError(
            fmt::format("guest {} never left this host: it will not be discarded", entry.guest));
      }
      return TakeBack(entry, journal);
    case Phase::kGone:
      if (resolution == Resolution::kRunHere) {
        return absl::FailedPreconditionError(
            fmt::format("guest {} runs on {}, which said so: it will not be run twice", entry.guest,
                        entry.peer));
      }
      return LetGo(entry, journal);
    default:
      if (resolution == Resolution::kRunHere) return TakeBack(entry, journal);
      if (resolution == Resolution::kDiscardHere) return LetGo(entry, journal);
      return SettleHandOver(entry, settings, journal);
  }
}

absl::StatusOr<std::string> GiveUp(JournalEntry entry, const Journal& journal) {
  RETURN_IF_ERROR(QemuDestination::DiscardLeftover(QmpPathOf(entry.locator), entry.undo));
  if (entry.phase == Phase::kReserved) {
    // Nobody will ask: the source was never told that we hold it, and so never handed it over.
    RETURN_IF_ERROR(journal.Remove(entry.migration_id, Role::kDestination));
  } else {
    entry.phase = Phase::kReleased;  // kept: the source may ask
    RETURN_IF_ERROR(journal.Write(entry));
  }
  return fmt::format("guest {} was given up: it is {}'s", entry.guest, entry.peer);
}

absl::StatusOr<std::string> TakeOver(JournalEntry entry, const Journal& journal) {
  entry.phase = Phase::kActivated;
  RETURN_IF_ERROR(journal.Write(entry));
  return fmt::format("guest {} runs here", entry.guest);
}

absl::StatusOr<std::string> SettleDestination(const JournalEntry& entry, Resolution resolution,
                                              const Journal& journal) {
  const std::string path = QmpPathOf(entry.locator);
  switch (entry.phase) {
    case Phase::kReserved:
    case Phase::kHolding:
      if (resolution == Resolution::kRunHere) {
        return absl::FailedPreconditionError(
            fmt::format("guest {} was never handed over: {} owns it", entry.guest, entry.peer));
      }
      return GiveUp(entry, journal);
    case Phase::kActivating: {
      if (resolution == Resolution::kDiscardHere) return GiveUp(entry, journal);
      const auto runs = QemuDestination::Runs(path);
      if (!runs.ok()) {
        return absl::FailedPreconditionError(fmt::format(
            "guest {} was about to run here, and its QEMU is gone: it may have run for a moment. "
            "If "
            "the source still has it (paused), decide which copy counts, and `ramferry resolve {} "
            "--discard-here`",
            entry.guest, entry.migration_id));
      }
      if (!*runs && entry.running) RETURN_IF_ERROR(QemuDestination::Resume(path));
      return TakeOver(entry, journal);
    }
    default:
      // Activated or released: nothing is left to do but to answer the source, if it asks. A person
      // who says otherwise wants the record gone.
      if (resolution != Resolution::kAsk) {
        RETURN_IF_ERROR(journal.Remove(entry.migration_id, Role::kDestination));
        return fmt::format("the record about guest {} is removed", entry.guest);
      }
      return fmt::format("guest {} is settled: {}", entry.guest, Explain(entry));
  }
}

}  // namespace

std::string Explain(const JournalEntry& entry) {
  const bool alive = WriterLives(entry);
  switch (entry.phase) {
    case Phase::kTracking:
      return alive ? "being copied; it runs here"
                   : "a copy was broken off; it runs here, `resolve` tidies up";
    case Phase::kPausing:
      return alive ? "being stopped for the switch-over"
                   : "a switch-over was broken off; it may be paused: `resolve` runs it here again";
    case Phase::kHandingOver:
      return alive ? "being handed over"
                   : "IN DOUBT: paused here, and perhaps running on the other host: `resolve` asks "
                     "it";
    case Phase::kGone:
      return "it runs on the other host; `resolve` removes what is left here";
    case Phase::kReturned:
      return "the other host gave it back; `resolve` runs it here again";
    case Phase::kReserved:
    case Phase::kHolding:
      return alive ? "on its way here"
                   : "its way here was broken off; the other host has it, `resolve` tidies up";
    case Phase::kActivating:
      return alive ? "being started here" : "it was being started here: `resolve` finds out";
    case Phase::kActivated:
      return "it runs here (kept until the other host has confirmed)";
    case Phase::kReleased:
      return "it was given up here and is the other host's (kept until that has confirmed)";
  }
  return "";
}

absl::StatusOr<std::string> SettleEntry(const JournalEntry& entry, Resolution resolution,
                                        const Settings& settings, const Journal& journal) {
  if (WriterLives(entry)) {
    return absl::FailedPreconditionError(
        fmt::format("ramferry (process {}) is at work on guest {}: let it end, or end it",
                    entry.pid, entry.guest));
  }
  return entry.role == Role::kSource ? SettleSource(entry, resolution, settings, journal)
                                     : SettleDestination(entry, resolution, journal);
}

}  // namespace ramferry
