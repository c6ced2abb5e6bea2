// `ramferry migrate GUEST DESTINATION`.
#include <unistd.h>

#include <atomic>
#include <memory>

#include "base/cancellation.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/guests.h"
#include "cli/peer.h"
#include "cli/progress.h"
#include "cli/recovery.h"
#include "cli/report_json.h"
#include "cli/report_text.h"
#include "cli/say.h"
#include "cli/signals.h"
#include "cli/transports.h"
#include "engine/placement/usable_cpus.h"
#include "engine/source_migration.h"
#include "transport/control/client.h"

namespace ramferry {
namespace {

int ExitCodeOf(const MigrationReport& report, bool cancelled) {
  switch (report.outcome) {
    case Outcome::kMigrated:
      return kExitOk;
    case Outcome::kInDoubt:
      return kExitInDoubt;
    default:
      return cancelled ? kExitCancelled : kExitRolledBack;
  }
}

int Fail(const absl::Status& status) {
  Tell("ramferry: {}\n", Message(status));
  if (absl::IsInvalidArgument(status)) return kExitUsage;
  return absl::IsFailedPrecondition(status) ? kExitRefused : kExitError;
}

absl::StatusOr<int> Migrate(const MigrateArguments& arguments, const Settings& settings) {
  ASSIGN_OR_RETURN(const std::string locator, LocatorOf(arguments.guest));
  if (!arguments.json.empty()) RETURN_IF_ERROR(CheckWritable(arguments.json));
  ASSIGN_OR_RETURN(const ControlClientOptions peer,
                   ReachPeer(arguments.destination, settings, arguments.server_name));
  ASSIGN_OR_RETURN(const Journal journal, Journal::Open(settings.state_dir));

  Cancellation cancel;
  ProgressDisplay display;
  // While it holds, nothing has been touched, and the next step may take as long as a network that
  // does not answer: leaving is all that a cancellation needs. Whoever takes it away goes on.
  std::atomic<bool> may_leave{false};
  const SignalWatch signals([&](int /*signal*/, int /*count*/) {
    if (may_leave.exchange(false)) {
      Tell("\ninterrupted before anything was touched\n");
      ::_exit(kExitCancelled);
    }
    if (SourceOwns(display.stage())) {
      cancel.Request("interrupted");
    } else {
      Tell("\ntoo late to cancel: the guest has been handed over; finishing\n");
    }
  });

  ASSIGN_OR_RETURN(const HostTopology host, ReadHostTopology());
  RETURN_IF_ERROR(CheckWantedCpus(host, settings.migration_options().cpus));
  if (const absl::Status settled = SettleLeftovers(locator, settings, journal); !settled.ok()) {
    const int code = Fail(settled);
    return IsInDoubt(locator, journal) ? kExitInDoubt : code;
  }
  may_leave = !cancel.requested();
  ASSIGN_OR_RETURN(const AttachedGuest attached, AttachGuest(locator));
  ASSIGN_OR_RETURN(const auto connectors, MakeConnectors(peer.host, settings, cancel));
  ASSIGN_OR_RETURN(auto control, ConnectControl(peer));
  std::vector<ChannelConnector*> in_order;
  in_order.reserve(connectors.size());
  for (const auto& connector : connectors) in_order.push_back(connector.get());
  SourceMigration migration(
      {.guest = *attached.guest,
       .locator = locator,
       .control = *control,
       .destination = arguments.destination,
       .server_name = arguments.server_name,
       .connectors = std::move(in_order),
       .journal = journal,
       .settle = [&peer](const std::string& id) { return AskVerdict(peer, id); },
       .confirm = [&peer](const std::string& id) { ConfirmVerdict(peer, id).IgnoreError(); },
       .observer = display,
       .cancel = cancel,
       .options = settings.migration_options(),
       .host = &host});
  if (!may_leave.exchange(false) && !cancel.requested()) ::pause();  // leaving already
  const MigrationReport report = migration.Run();

  if (!report.rounds.empty()) Say("{}", FormatReport(report));
  if (!report.error.empty()) Tell("ramferry: {}\n", report.error);
  if (!arguments.json.empty()) {
    // Where the guest is counts: the exit code says that, whatever becomes of the report.
    if (const absl::Status written = WriteJson(report, arguments.json); !written.ok()) {
      Tell("ramferry: the report is not written: {}\n", Message(written));
    }
  }
  if (report.outcome == Outcome::kRolledBack && report.stage < Stage::kPreCopy &&
      !cancel.requested()) {
    return kExitRefused;  // no page was sent: this guest and this destination do not go together
  }
  return ExitCodeOf(report, cancel.requested());
}

}  // namespace

int MigrateCommand(const MigrateArguments& arguments, const Settings& settings) {
  const auto code = Migrate(arguments, settings);
  return code.ok() ? *code : Fail(code.status());
}

}  // namespace ramferry
