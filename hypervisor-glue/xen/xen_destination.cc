#include "hypervisor-glue/xen/xen_destination.h"

#include <chrono>
#include <utility>

#include "base/private_directory.h"
#include "base/status.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "hypervisor-glue/xen/preflight.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

using std::chrono::seconds;

// For xl to build an empty domain. The source waits for an answer meanwhile.
constexpr seconds kBuildTime{25};
// For xl to remove a domain.
constexpr seconds kRemoveTime{60};
// Records of a stopped domain: some KiB for each of its CPUs.
constexpr size_t kMostRecords = 64 << 20;

absl::StatusOr<std::string> UuidIn(const std::string& undo) {
  const auto record = nlohmann::json::parse(undo, nullptr, /*allow_exceptions=*/false);
  if (!record.is_object() || !record.contains("uuid") || !record["uuid"].is_string()) {
    return absl::InvalidArgumentError("the journal does not say which domain it was");
  }
  return record["uuid"].get<std::string>();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DestinationGuest>> XenHost::Reserve(
    const GuestDescription& description, const ReservationNote& note) {
  ASSIGN_OR_RETURN(auto xen, XenControl::Open());
  ASSIGN_OR_RETURN(const XenBlueprint blueprint, ParseBlueprint(description.blueprint));
  std::vector<std::string> reasons = XenDestinationReasons(*xen, blueprint);
  std::vector<RegionDescription> regions;
  for (const FrameRange& range : GroupFrames(blueprint.ram)) {
    regions.push_back(DescribeRange(range));
  }
  if (regions != description.regions) {
    reasons.emplace_back(
        "its regions do not fit its blueprint: use the same release on both hosts");
  }
  if (!description.running) reasons.emplace_back("it is paused");
  if (!reasons.empty()) {
    return absl::FailedPreconditionError(fmt::format("domain {} cannot come to this host:\n  - {}",
                                                     description.name,
                                                     fmt::join(reasons, "\n  - ")));
  }
  RETURN_IF_ERROR(EnsurePrivateDirectory(runtime_directory_, "runtime directory"));
  std::unique_ptr<XenDestination> guest(new XenDestination(std::move(xen)));
  guest->domain_ = {.uuid = blueprint.uuid, .name = description.name};
  RETURN_IF_ERROR(note(guest->locator(), guest->undo_record()));
  RETURN_IF_ERROR(guest->Build(blueprint, description.name,
                               fmt::format("{}/xl-{}.log", runtime_directory_, blueprint.uuid)));
  return guest;
}

absl::Status XenDestination::Build(const XenBlueprint& blueprint, const std::string& name,
                                   const std::string& log) {
  ASSIGN_OR_RETURN(builder_, DomainBuilder::Start(log));
  RETURN_IF_ERROR(builder_->Feed(EncodeHead({.configuration = blueprint.configuration,
                                             .xen_major = blueprint.xen_major,
                                             .xen_minor = blueprint.xen_minor,
                                             .cpuid_policy = blueprint.cpuid_policy,
                                             .msr_policy = blueprint.msr_policy}),
                                 In(kBuildTime)));
  ASSIGN_OR_RETURN(domain_, xen_->FindByUuid(blueprint.uuid));
  domain_.name = name;
  RETURN_IF_ERROR(PopulateMemory(*xen_, domain_, blueprint.ram));
  ASSIGN_OR_RETURN(memory_, DomainMemory::Map(*xen_, domain_, GroupFrames(blueprint.ram),
                                              /*writable=*/true));
  // Xen scrubs what it gives to domains, unless it was started with bootscrub=0.
  memory_.Clear();
  return absl::OkStatus();
}

XenDestination::~XenDestination() {
  memory_ = DomainMemory();
}

std::string XenDestination::undo_record() const {
  return nlohmann::json{{"uuid", domain_.uuid}}.dump();
}

absl::Status XenDestination::PopulatedRuns(const Slice& slice, PageRuns& runs) {
  memory_.PopulatedRuns(slice, runs);
  return absl::OkStatus();
}

absl::Status XenDestination::LoadDeviceState(std::span<const std::byte> bytes) {
  if (records_.size() + bytes.size() > kMostRecords) {
    return absl::ResourceExhaustedError("the domain's saved state is larger than 64 MiB");
  }
  records_.insert(records_.end(), bytes.begin(), bytes.end());
  return absl::OkStatus();
}

absl::Status XenDestination::FinishDeviceState(Deadline deadline) {
  RETURN_IF_ERROR(CheckSavedRecords(records_));
  memory_ = DomainMemory();  // the restorer clears some pages: those of rings that begin anew
  RETURN_IF_ERROR(builder_->Feed(records_, deadline));
  RETURN_IF_ERROR(builder_->Feed(EncodeTail(), deadline));
  RETURN_IF_ERROR(builder_->Finish(deadline));
  const auto state = xen_->StateOf(domain_);
  if (!state.ok() || state->dying || state->shut_down || !state->paused) {
    return absl::FailedPreconditionError(fmt::format(
        "xl removed domain {} when it had been restored: see its log on the destination, "
        "xl-{}.log",
        domain_.name, domain_.uuid));
  }
  return absl::OkStatus();
}

absl::Status XenDestination::Activate() {
  RETURN_IF_ERROR(xen_->Unpause(domain_));
  active_ = true;
  return absl::OkStatus();
}

absl::Status XenDestination::Discard() {
  memory_ = DomainMemory();
  if (builder_ != nullptr) builder_->Abandon(In(kRemoveTime));
  return DestroyDomain(*xen_, domain_);
}

absl::Status XenDestination::TakeOver(const std::string& undo, bool run) {
  ASSIGN_OR_RETURN(const std::string uuid, UuidIn(undo));
  ASSIGN_OR_RETURN(const auto xen, XenControl::Open());
  ASSIGN_OR_RETURN(const XenDomain domain, xen->FindByUuid(uuid));
  ASSIGN_OR_RETURN(const XenDomainState state, xen->StateOf(domain));
  if (state.dying) return absl::NotFoundError("the domain has ended");
  return run && state.paused ? xen->Unpause(domain) : absl::OkStatus();
}

absl::Status XenDestination::DiscardLeftover(const std::string& undo) {
  ASSIGN_OR_RETURN(const std::string uuid, UuidIn(undo));
  ASSIGN_OR_RETURN(const auto xen, XenControl::Open());
  const auto domain = xen->FindByUuid(uuid);
  if (absl::IsNotFound(domain.status())) return absl::OkStatus();
  RETURN_IF_ERROR(domain.status());
  const auto state = xen->StateOf(*domain);
  if (absl::IsNotFound(state.status())) return absl::OkStatus();
  RETURN_IF_ERROR(state.status());
  if (!state->paused && !state->dying) {
    return absl::FailedPreconditionError(
        fmt::format("domain {} ({}) runs: it is not what an unfinished migration leaves behind",
                    domain->name, domain->id));
  }
  return DestroyDomain(*xen, *domain);
}

}  // namespace ramferry
