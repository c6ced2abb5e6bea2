// `ramferry check`: what on this host, and in a guest, would refuse a migration.
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/guests.h"
#include "cli/peer.h"
#include "cli/recovery.h"
#include "cli/rights.h"
#include "cli/say.h"
#include "engine/journal.h"
#include "engine/options.h"
#include "engine/source_dialogue.h"
#include "fmt/format.h"
#include "hypervisor-glue/tracking/write_tracker.h"
#include "transport/control/client.h"
#ifdef RAMFERRY_RDMA
#include "transport/rdma/check.h"
#endif
#ifdef RAMFERRY_DPDK
#include "cli/transports.h"
#include "transport/dpdk/host_facts.h"
#endif

namespace ramferry {
namespace {

class Findings {
 public:
  void Add(const char* what, const absl::Status& status, const std::string& good) {
    if (status.ok()) {
      Say("ok       {:<22} {}\n", what, good);
    } else {
      Say("PROBLEM  {:<22} {}\n", what, Message(status));
      failed_ = true;
    }
  }
  void Tell(const char* what, const std::string& text) { Say("note     {:<22} {}\n", what, text); }
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  bool failed_ = false;
};

void CheckRights(Findings& findings) {
  const auto rights = OwnRights();
  if (!rights.ok()) return findings.Add("rights", rights.status(), "");
  const RightsFinding finding = JudgeRights(*rights);
  findings.Add("rights", finding.status, finding.good);
  if (!finding.limit.empty()) findings.Tell("rights", finding.limit);
}

// RDMA is a help, not a need: what is wrong with it does not fail the check.
void CheckRdma(Findings& findings, [[maybe_unused]] const Settings& settings,
               [[maybe_unused]] std::span<const MappedRegion> guest) {
#ifdef RAMFERRY_RDMA
  const rdma::RdmaReport report = rdma::ProbeRdma();
  for (const rdma::RdmaDevice& device : report.devices) {
    findings.Tell(
        "RDMA device",
        fmt::format(
            "{}: NUMA node {}, {} registrations, {} requests a queue pair, {}", device.name,
            device.numa_node ? std::to_string(*device.numa_node) : "unknown",
            device.limits.most_registrations, device.most_requests,
            device.on_demand_paging ? "on-demand paging (not used)" : "no on-demand paging"));
    for (const rdma::RdmaPort& port : device.ports) {
      findings.Tell("RDMA port", fmt::format("{} port {}: {}, {}, {:.0f} Gbit/s, MTU {}",
                                             device.name, port.number, port.state, port.link_layer,
                                             port.gigabits_per_second, port.mtu));
      for (const rdma::RdmaGid& gid : port.gids) {
        findings.Tell("RDMA GID", fmt::format("{} port {}: {} {} ({}){}", device.name, port.number,
                                              gid.index, gid.address, gid.kind,
                                              gid.interface.empty() ? "" : " on " + gid.interface));
      }
    }
  }
  if (!report.devices.empty()) {
    findings.Tell("RDMA pinned memory",
                  fmt::format("{}; room for {} MiB of a guest that comes here",
                              report.pin_limit ? fmt::format("at most {} MiB (memlock)",
                                                             report.pin_limit->value() >> 20)
                                               : "no limit (memlock)",
                              report.pin_headroom.value() >> 20));
  }
  const size_t channels =
      settings.workers > 0 ? static_cast<size_t>(settings.workers) : DefaultWorkers();
  const rdma::RdmaNeeds needs =
      rdma::NeedsOf(guest, MiB(static_cast<uint64_t>(settings.pin_budget_mib)), channels);
  std::vector<rdma::RdmaProblem> problems = report.problems;
  for (rdma::RdmaProblem& problem : rdma::ProblemsFor(report, needs)) {
    problems.push_back(std::move(problem));
  }
  for (const rdma::RdmaProblem& problem : problems) {
    findings.Tell("RDMA", fmt::format("{}: {}", problem.what, problem.fix));
  }
#else
  findings.Tell("RDMA", "not built in: TCP only");
#endif
}

// The same for DPDK.
void CheckDpdk(Findings& findings, [[maybe_unused]] const Settings& settings) {
#ifdef RAMFERRY_DPDK
  if (settings.dpdk_device.empty()) {
    findings.Tell("DPDK", "built in; no port is set up (dpdk.device in the configuration)");
    return;
  }
  findings.Tell("DPDK port", fmt::format("{}, {}, MTU {}", settings.dpdk_device,
                                         settings.dpdk_address, settings.dpdk_mtu));
  for (const dpdk::HostFact& fact : dpdk::HostFacts(DpdkOptionsOf(settings))) {
    findings.Tell(("DPDK " + fact.what).c_str(),
                  fact.fix.empty() ? fact.state : fmt::format("{}: {}", fact.state, fact.fix));
  }
#else
  findings.Tell("DPDK", "not built in");
#endif
}

// What is known of the guest: also one that cannot be moved may be described.
struct GuestToCheck {
  std::string locator;  // "": it is the name of no guest
  absl::StatusOr<AttachedGuest> attached;
  absl::StatusOr<GuestDescription> description;
};

GuestToCheck LookAt(const std::string& guest) {
  const auto locator = LocatorOf(guest);
  if (!locator.ok()) {
    return {.locator = "", .attached = locator.status(), .description = locator.status()};
  }
  auto attached = AttachGuest(*locator);
  if (!attached.ok()) {
    return {
        .locator = *locator, .attached = attached.status(), .description = SurveyGuest(*locator)};
  }
  GuestDescription description = attached->guest->description();
  return {
      .locator = *locator, .attached = std::move(attached), .description = std::move(description)};
}

// Whether the destination would take the guest: it prepares for it, and is told to forget it.
absl::Status AskDestination(const CheckArguments& arguments, const GuestDescription& guest,
                            const Settings& settings) {
  ASSIGN_OR_RETURN(const ControlClientOptions peer,
                   ReachPeer(arguments.destination, settings, arguments.server_name));
  ASSIGN_OR_RETURN(const auto control, ConnectControl(peer));
  const Cancellation never;
  return SourceDialogue(*control, never, settings.migration_options().answer_time)
      .AskForRoom(guest);
}

// Damaged entries; but for those of other guests, `migrate` refuses. `locator`: "" for any guest.
void CheckJournal(Findings& findings, const Journal& journal, const std::string& locator) {
  const auto known = journal.ReadAll();
  if (!known.ok()) return findings.Add("journal", known.status(), "");
  for (const DamagedEntry& damaged : known->damaged) {
    if (locator.empty() || MayConcern(damaged, locator)) {
      findings.Add("journal", absl::FailedPreconditionError(Describe(damaged)), "");
    } else {
      findings.Tell("journal", Describe(damaged));
    }
  }
}

// The reasons of both hosts, so that nobody has to mend one after the other.
void CheckGuest(Findings& findings, const CheckArguments& arguments, const GuestToCheck& guest,
                const Settings& settings) {
  findings.Add("guest", guest.attached.status(),
               guest.attached.ok() ? guest.attached->summary : "");
  if (arguments.destination.empty()) return;
  if (!guest.description.ok()) {
    return findings.Tell("destination", "not asked: nothing is known of the guest");
  }
  findings.Add("destination", AskDestination(arguments, *guest.description, settings),
               arguments.destination + " would take it");
}

}  // namespace

int CheckCommand(const CheckArguments& arguments, const Settings& settings) {
  Findings findings;
  // Xen tracks its domains itself; what it cannot track is the guest's own finding.
  if (!arguments.guest.starts_with("xen:")) {
    const auto tracking = ChooseTracking();
    findings.Add("dirty-page tracking", tracking.status(),
                 tracking.ok() ? tracking->description : "");
  }
  CheckRights(findings);
  const auto identity = LoadOwnIdentity(settings);
  findings.Add("identity", identity.status(), identity.ok() ? identity->name : "");
  const auto journal = Journal::Open(settings.state_dir);
  findings.Add("state directory", journal.status(), settings.state_dir);
  std::optional<GuestToCheck> guest;
  if (!arguments.guest.empty()) guest = LookAt(arguments.guest);
  if (journal.ok()) CheckJournal(findings, *journal, guest ? guest->locator : "");
  const bool attached = guest && guest->attached.ok();
  CheckRdma(findings, settings,
            attached ? (*guest->attached).guest->regions() : std::span<const MappedRegion>());
  CheckDpdk(findings, settings);
  if (guest) CheckGuest(findings, arguments, *guest, settings);
  return findings.failed() ? kExitRefused : kExitOk;
}

}  // namespace ramferry
