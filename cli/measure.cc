#include "cli/measure.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>

#include "base/cancellation.h"
#include "base/host_identity.h"
#include "base/status.h"
#include "cli/exit_codes.h"
#include "cli/guests.h"
#include "cli/recovery.h"
#include "cli/say.h"
#include "cli/signals.h"
#include "engine/journal.h"

namespace ramferry {
namespace {

absl::StatusOr<WorkingSet> Track(SourceGuest& guest, std::chrono::seconds time,
                                 const Cancellation& cancel) {
  RETURN_IF_ERROR(cancel.status());
  RETURN_IF_ERROR(guest.StartTracking());
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  RealMeterClock clock(cancel);
  auto set = MeasureWorkingSet(guest, {.time = time}, clock, [&](double done) {
    if (terminal) Tell("\rmeasuring: {:.0f} %\x1b[K", 100 * done);
  });
  if (terminal) Tell("\r\x1b[K");
  return set;
}

}  // namespace

absl::StatusOr<WorkingSet> MeasureGuest(const std::string& guest, int seconds,
                                        const Settings& settings) {
  ASSIGN_OR_RETURN(const std::string locator, LocatorOf(guest));
  ASSIGN_OR_RETURN(const Journal journal, Journal::Open(settings.state_dir));
  Cancellation cancel;
  const SignalWatch signals(
      [&cancel](int /*signal*/, int /*count*/) { cancel.Request("interrupted"); });
  RETURN_IF_ERROR(SettleLeftovers(locator, settings, journal));
  ASSIGN_OR_RETURN(const AttachedGuest attached, AttachGuest(locator));
  // QEMU's tracking ends with this process, Xen's does not: whoever comes next must know of it.
  JournalEntry entry{.migration_id = NewUuid(),
                     .role = Role::kSource,
                     .phase = Phase::kMeasuring,
                     .guest = attached.guest->description().name,
                     .locator = locator,
                     .undo = attached.guest->undo_record(),
                     .running = attached.guest->description().running};
  StampWithThisProcess(entry);
  RETURN_IF_ERROR(journal.Write(entry));
  auto set = Track(*attached.guest, std::chrono::seconds(seconds), cancel);
  absl::Status undone = attached.guest->RollBack();
  // A guest that has ended needs no undoing; what went wrong first is what counts.
  if (undone.ok() || absl::IsNotFound(undone)) {
    undone = journal.Remove(entry.migration_id, Role::kSource);
  }
  RETURN_IF_ERROR(set.status());
  RETURN_IF_ERROR(undone);
  return set;
}

absl::Status WriteOutput(const std::string& path, const std::string& text) {
  if (path == "-") {
    Say("{}", text);
    return absl::OkStatus();
  }
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file) return ErrnoStatus(errno, "cannot write " + path);
  return absl::OkStatus();
}

int FailCommand(const absl::Status& status) {
  Tell("ramferry: {}\n", Message(status));
  if (absl::IsCancelled(status)) return kExitCancelled;
  if (absl::IsInvalidArgument(status)) return kExitUsage;
  return absl::IsFailedPrecondition(status) ? kExitRefused : kExitError;
}

}  // namespace ramferry
