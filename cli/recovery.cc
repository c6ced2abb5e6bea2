#include "cli/recovery.h"

#include <algorithm>
#include <memory>

#include "base/status.h"
#include "cli/guests.h"
#include "cli/peer.h"
#include "cli/say.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// What this side has settled, the other need not remember. If it cannot be told, its record stays.
void Confirm(const JournalEntry& entry, const Settings& settings) {
  if (const auto peer = ReachPeer(entry.peer, settings, entry.server_name); peer.ok()) {
    ConfirmVerdict(*peer, entry.migration_id).IgnoreError();
  }
}

absl::StatusOr<std::string> TakeBack(const JournalEntry& entry, const Journal& journal) {
  JournalEntry begun = entry;
  // A measurement never stops a guest: if it is paused now, somebody else did that.
  if (entry.phase == Phase::kMeasuring) begun.running = false;
  auto guest = TakeUpGuest(begun);
  absl::Status undone = guest.ok() ? guest->guest->RollBack() : guest.status();
  if (!undone.ok() && !absl::IsNotFound(undone)) return undone;
  RETURN_IF_ERROR(journal.Remove(entry.migration_id, Role::kSource));
  if (!undone.ok()) return fmt::format("guest {} is gone: {}", entry.guest, Message(undone));
  if (entry.phase == Phase::kMeasuring) {
    return fmt::format("the writes of guest {} are not tracked any more", entry.guest);
  }
  return fmt::format("guest {} {} on this host, as before the migration", entry.guest,
                     entry.running ? "runs" : "is paused");
}

absl::StatusOr<std::string> LetGo(const JournalEntry& entry, const Journal& journal) {
  auto guest = TakeUpGuest(entry);
  if (!guest.ok() && !absl::IsNotFound(guest.status())) return guest.status();
  if (guest.ok()) {
    if (guest->runs) {
      return absl::FailedPreconditionError(fmt::format(
          "guest {} is {}'s, and yet it runs here too: somebody started it by hand. End one of the "
          "two, then resolve again",
          entry.guest, entry.peer));
    }
    RETURN_IF_ERROR(guest->guest->Commit());
  }
  RETURN_IF_ERROR(journal.Remove(entry.migration_id, Role::kSource));
  return fmt::format("guest {} runs on {}; what was left of it here is removed", entry.guest,
                     entry.peer);
}

// Whoever owns it by the destination's word; a person's word counts only where that has none.
absl::StatusOr<std::string> SettleHandOver(const JournalEntry& entry, Resolution resolution,
                                           const Settings& settings, const Journal& journal) {
  // Where it cannot even be called (this host's certificate has expired, say), a person's word must
  // still do.
  const auto peer = ReachPeer(entry.peer, settings, entry.server_name);
  const auto verdict =
      peer.ok() ? AskVerdict(*peer, entry.migration_id) : absl::StatusOr<Verdict>(peer.status());
  const bool owned = verdict.ok() && *verdict == Verdict::kOwned;
  const bool released = verdict.ok() && *verdict == Verdict::kReleased;
  if (verdict.ok() && *verdict == Verdict::kUndecided) {
    return absl::FailedPreconditionError(fmt::format(
        "{} is still at work on guest {}; ask again in a moment", entry.peer, entry.guest));
  }
  if (owned && resolution == Resolution::kRunHere) {
    return absl::FailedPreconditionError(fmt::format(
        "guest {} runs on {}, which says so: it will not be run twice", entry.guest, entry.peer));
  }
  if (released && resolution == Resolution::kDiscardHere) {
    return absl::FailedPreconditionError(
        fmt::format("{} has given guest {} up, and says so: this is the only copy, it will not be "
                    "discarded",
                    entry.peer, entry.guest));
  }
  if (owned || resolution == Resolution::kDiscardHere) return LetGo(entry, journal);
  if (released || resolution == Resolution::kRunHere) return TakeBack(entry, journal);
  const std::string choice = fmt::format(
      "look whether it runs there, then `ramferry resolve {} --run-here` (it does NOT run there, "
      "and never will) or `--discard-here` (it does)",
      entry.migration_id);
  if (!verdict.ok()) {
    return absl::FailedPreconditionError(fmt::format(
        "{} cannot be asked who owns guest {} ({}). It stays paused here. Try again when that host "
        "can be reached. If it never will: {}",
        entry.peer, entry.guest, Message(verdict.status()), choice));
  }
  return absl::FailedPreconditionError(
      fmt::format("{} does not know what became of guest {}: {}", entry.peer, entry.guest, choice));
}

absl::StatusOr<std::string> SettleSource(const JournalEntry& entry, Resolution resolution,
                                         const Settings& settings, const Journal& journal) {
  absl::StatusOr<std::string> done;
  switch (entry.phase) {
    case Phase::kMeasuring:
    case Phase::kTracking:
    case Phase::kPausing:
    case Phase::kReturned:
      if (resolution == Resolution::kDiscardHere) {
        return absl::FailedPreconditionError(
            fmt::format("guest {} is this host's: it will not be discarded", entry.guest));
      }
      done = TakeBack(entry, journal);
      break;
    case Phase::kGone:
      if (resolution == Resolution::kRunHere) {
        return absl::FailedPreconditionError(
            fmt::format("guest {} runs on {}, which said so: it will not be run twice", entry.guest,
                        entry.peer));
      }
      done = LetGo(entry, journal);
      break;
    default:
      done = SettleHandOver(entry, resolution, settings, journal);
      break;
  }
  const bool asked_for = entry.phase != Phase::kMeasuring && entry.phase != Phase::kTracking &&
                         entry.phase != Phase::kPausing;
  if (done.ok() && asked_for) Confirm(entry, settings);
  return done;
}

absl::StatusOr<std::string> GiveUp(JournalEntry entry, const Journal& journal) {
  RETURN_IF_ERROR(DiscardGuest(entry));
  if (entry.phase <= Phase::kReserved) {  // nothing was promised: the source never asks
    RETURN_IF_ERROR(journal.Remove(entry.migration_id, Role::kDestination));
  } else {
    entry.phase = Phase::kReleased;  // kept: the source may ask
    RETURN_IF_ERROR(journal.Write(entry));
  }
  return fmt::format("guest {} was given up: it is {}'s", entry.guest, entry.peer);
}

absl::StatusOr<std::string> SettleDestination(JournalEntry entry, Resolution resolution,
                                              const Journal& journal) {
  switch (entry.phase) {
    case Phase::kStarting:
    case Phase::kReserved:
    case Phase::kHolding:
      if (resolution == Resolution::kRunHere) {
        return absl::FailedPreconditionError(
            fmt::format("guest {} was never handed over: {} owns it", entry.guest, entry.peer));
      }
      return GiveUp(entry, journal);
    case Phase::kActivating: {
      if (resolution == Resolution::kDiscardHere) return GiveUp(entry, journal);
      const absl::Status taken = TakeOverGuest(entry);
      if (absl::IsNotFound(taken)) {
        return absl::FailedPreconditionError(fmt::format(
            "guest {} was about to run here, and it has ended: it may have run for a moment. "
            "`ramferry resolve {} --discard-here` gives it back to {}, which has it paused as it "
            "was before",
            entry.guest, entry.migration_id, entry.peer));
      }
      RETURN_IF_ERROR(taken);
      entry.phase = Phase::kActivated;
      RETURN_IF_ERROR(journal.Write(entry));
      return fmt::format("guest {} runs here", entry.guest);
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
    case Phase::kMeasuring:
      return alive ? "its writing is being measured; it runs here"
                   : "a measurement was broken off; it runs here, `resolve` tidies up";
    case Phase::kTracking:
      return alive ? "being copied; it runs here"
                   : "a copy was broken off; it runs here, perhaps throttled: `resolve` tidies up";
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
    case Phase::kStarting:
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

// Other names of QEMU's socket were made one by LocatorOf, for the entry and for whoever asks.
bool MayConcern(const DamagedEntry& damaged, const std::string& locator) {
  return damaged.locator.empty() || damaged.locator == locator;
}

absl::Status SettleLeftovers(const std::string& locator, const Settings& settings,
                             const Journal& journal) {
  ASSIGN_OR_RETURN(const JournalContents known, journal.ReadAll());
  // It may have been handed over, and run on another host.
  for (const DamagedEntry& damaged : known.damaged) {
    if (MayConcern(damaged, locator)) return absl::FailedPreconditionError(Describe(damaged));
    Tell("{}\n", Describe(damaged));
  }
  // Also what came here and is perhaps not this host's yet.
  for (const JournalEntry& entry : known.entries) {
    if (entry.locator != locator || Settled(entry)) continue;
    ASSIGN_OR_RETURN(const std::string done,
                     SettleEntry(entry, Resolution::kAsk, settings, journal));
    Tell("an earlier {} was broken off: {}\n",
         entry.phase == Phase::kMeasuring ? "measurement" : "migration", done);
  }
  return absl::OkStatus();
}

bool IsInDoubt(const std::string& locator, const Journal& journal) {
  const auto known = journal.ReadAll();
  return known.ok() && std::any_of(known->entries.begin(), known->entries.end(),
                                   [&locator](const JournalEntry& entry) {
                                     return entry.phase == Phase::kHandingOver &&
                                            entry.locator == locator && !WriterLives(entry);
                                   });
}

absl::StatusOr<std::string> SettleEntry(const JournalEntry& entry, Resolution resolution,
                                        const Settings& settings, const Journal& journal) {
  ASSIGN_OR_RETURN(const UniqueFd lock, journal.Lock());
  // Another process may have settled it since the caller read it.
  const auto now = journal.Read(entry.migration_id, entry.role);
  if (absl::IsNotFound(now.status())) {
    return fmt::format("guest {} has been settled meanwhile", entry.guest);
  }
  RETURN_IF_ERROR(now.status());
  if (!Settled(*now) && WriterLives(*now)) {
    return absl::FailedPreconditionError(
        fmt::format("ramferry (process {}) is at work on guest {}: let it end, or end it", now->pid,
                    now->guest));
  }
  return now->role == Role::kSource ? SettleSource(*now, resolution, settings, journal)
                                    : SettleDestination(*now, resolution, journal);
}

}  // namespace ramferry
