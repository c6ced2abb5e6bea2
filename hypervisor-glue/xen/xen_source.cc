#include "hypervisor-glue/xen/xen_source.h"

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "base/status.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "hypervisor-glue/xen/blueprint.h"
#include "hypervisor-glue/xen/domain_state.h"
#include "hypervisor-glue/xen/preflight.h"
#include "hypervisor-glue/xen/toolstack.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

using std::chrono::seconds;

constexpr const char* kShutdownNode = "control/shutdown";
constexpr const char* kSuspend = "suspend";
constexpr const char* kMemoryTarget = "memory/target";
// Between two looks at a guest that is about to suspend.
constexpr std::chrono::microseconds kLookAgain{500};
// For a guest that has begun to suspend to be done with it: it detaches from its devices.
constexpr seconds kSuspendTime{30};
// The same, where another process may have asked it long ago, or not at all.
constexpr seconds kOthersSuspendTime{3};

}  // namespace

absl::StatusOr<std::unique_ptr<XenSource>> XenSource::Attach(const std::string& name) {
  ASSIGN_OR_RETURN(auto xen, XenControl::Open());
  ASSIGN_OR_RETURN(XenDomain domain, xen->Find(name));
  std::unique_ptr<XenSource> guest(new XenSource(std::move(xen), std::move(domain)));
  ASSIGN_OR_RETURN(std::string configuration, ConfigurationOf(guest->domain_));
  ASSIGN_OR_RETURN(const auto reasons,
                   XenSourceReasons(*guest->xen_, guest->domain_, configuration));
  if (!reasons.empty()) {
    return absl::FailedPreconditionError(fmt::format(
        "domain {} cannot be moved:\n  - {}", guest->domain_.name, fmt::join(reasons, "\n  - ")));
  }
  RETURN_IF_ERROR(guest->Describe(std::move(configuration)));
  return guest;
}

absl::StatusOr<std::unique_ptr<XenSource>> XenSource::TakeUp(const std::string& undo,
                                                             bool running) {
  const auto record = nlohmann::json::parse(undo, nullptr, /*allow_exceptions=*/false);
  if (!record.is_object() || !record.contains("uuid") || !record["uuid"].is_string()) {
    return absl::InvalidArgumentError("the journal does not say which domain it was");
  }
  ASSIGN_OR_RETURN(auto xen, XenControl::Open());
  ASSIGN_OR_RETURN(XenDomain domain, xen->FindByUuid(record["uuid"].get<std::string>()));
  std::unique_ptr<XenSource> guest(new XenSource(std::move(xen), std::move(domain)));
  guest->description_.name = guest->domain_.name;
  guest->description_.running = running;
  guest->tracking_ = guest->pause_begun_ = guest->taken_up_ = true;
  return guest;
}

std::string XenSource::undo_record() const {
  return nlohmann::json{{"uuid", domain_.uuid}}.dump();
}

absl::Status XenSource::Describe(std::string configuration) {
  ASSIGN_OR_RETURN(const XenDomainState state, xen_->StateOf(domain_));
  pages_ = state.pages;
  memory_target_ = xen_->Read(domain_, kMemoryTarget).value_or("");
  xen_pfn_t frames = 0;
  if (xc_domain_nr_gpfns(xen_->xc(), domain_.id, &frames) < 0) {
    return XenControl::Error(domain_, "Xen does not say how much memory it has");
  }
  ASSIGN_OR_RETURN(ram_, FindMemory(*xen_, domain_, frames));
  if (ram_.empty()) return absl::FailedPreconditionError("the domain has no memory");
  // A guest may have mapped Xen's frames far above its memory.
  frames_ = ram_.back().end();
  ASSIGN_OR_RETURN(memory_,
                   DomainMemory::Map(*xen_, domain_, GroupFrames(ram_), /*writable=*/false));
  XenBlueprint blueprint{.uuid = domain_.uuid,
                         .configuration = std::move(configuration),
                         .xen_major = xen_->MajorVersion(),
                         .xen_minor = xen_->MinorVersion(),
                         .ram = ram_};
  RETURN_IF_ERROR(ReadCpuPolicy(*xen_, domain_, blueprint));
  description_ = {.name = domain_.name,
                  .hypervisor = "xen",
                  .hypervisor_version = xen_->Version(),
                  .machine = "pvh",
                  .vcpus = state.vcpus,
                  .running = true,
                  .blueprint = FormatBlueprint(blueprint)};
  for (const MappedRegion& region : memory_.regions()) {
    description_.regions.push_back(region.description);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> XenSource::Runs() const {
  ASSIGN_OR_RETURN(const XenDomainState state, xen_->StateOf(domain_));
  return !state.shut_down && !state.paused && !state.dying;
}

absl::Status XenSource::StartTracking() {
  tracking_ = true;
  auto log = DirtyLog::Enable(*xen_, domain_, frames_, ram_);
  if (!log.ok()) {
    tracking_ = false;  // what another process switched on stays on
    return log.status();
  }
  log_ = *std::move(log);
  // From here on what is mapped must be what the guest has.
  return CheckMemoryUnchanged();
}

// Xen's log does not see a guest give frames back and take others (docs/features/migration.pandoc,
// "known issues"), and the mapping is of the page that was there before.
absl::Status XenSource::CheckMemoryUnchanged() const {
  ASSIGN_OR_RETURN(const XenDomainState state, xen_->StateOf(domain_));
  if (state.pages == pages_ && xen_->Read(domain_, kMemoryTarget).value_or("") == memory_target_) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(fmt::format(
      "the memory of domain {} was changed while it was moved (it has {} pages, it had {}): leave "
      "its balloon alone (`xl mem-set`) until the migration is over. It goes on running here",
      domain_.name, state.pages, pages_));
}

absl::Status XenSource::PopulatedRuns(const Slice& slice, PageRuns& runs) {
  memory_.PopulatedRuns(slice, runs);
  return absl::OkStatus();
}

absl::Status XenSource::CollectDirty(const Slice& slice, PageRuns& runs) {
  const uint64_t base = memory_.ranges()[slice.region].first;
  return log_->Collect({.first = base + slice.pages.first, .count = slice.pages.count}, base, runs);
}

absl::Status XenSource::PeekDirty(const Slice& slice, PageRuns& runs) {
  const uint64_t base = memory_.ranges()[slice.region].first;
  return log_->Peek({.first = base + slice.pages.first, .count = slice.pages.count}, base, runs);
}

absl::Status XenSource::BeginPause(DeviceStateSink sink) {
  RETURN_IF_ERROR(CheckMemoryUnchanged());
  ASSIGN_OR_RETURN(const XenDomainState state, xen_->StateOf(domain_));
  if (state.shut_down || state.paused || state.dying) {
    return absl::FailedPreconditionError(
        "the guest was stopped during its migration; it stays on this host as it is");
  }
  sink_ = std::move(sink);
  pause_begun_ = true;
  if (SuspendsItself(*xen_, domain_)) return xen_->Write(domain_, kShutdownNode, kSuspend);
  if (xc_domain_shutdown(xen_->xc(), domain_.id, SHUTDOWN_suspend) != 0) {
    return XenControl::Error(domain_, "Xen does not suspend it");
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> XenSource::WaitPaused(Deadline deadline) {
  for (;;) {
    ASSIGN_OR_RETURN(const XenDomainState state, xen_->StateOf(domain_));
    if (state.suspended) break;
    if (state.shut_down || state.dying) {
      return absl::FailedPreconditionError(
          "the guest shut down or crashed during its migration; it stays on this host as it is");
    }
    if (Clock::now() >= deadline) return false;
    std::this_thread::sleep_for(kLookAgain);
  }
  paused_at_ = Clock::now();
  RETURN_IF_ERROR(CheckMemoryUnchanged());
  log_->GuestStopped();
  return true;
}

absl::Status XenSource::SaveDeviceState() {
  ASSIGN_OR_RETURN(const Bytes records, SaveRecords(*xen_, domain_));
  RETURN_IF_ERROR(sink_(records));
  log_->GuestStopped();  // for the look afterwards
  return absl::OkStatus();
}

void XenSource::Unmap() {
  log_.reset();
  memory_ = DomainMemory();
}

absl::Status XenSource::Commit() {
  Unmap();  // its memory is only freed then
  return DestroyDomain(*xen_, domain_);
}

// Whatever became of the request to suspend, the guest runs afterwards.
absl::Status XenSource::TakeBackSuspension() {
  if (xen_->Read(domain_, kShutdownNode).value_or("") == kSuspend) {
    ASSIGN_OR_RETURN(const bool unseen, xen_->Exchange(domain_, kShutdownNode, kSuspend, ""));
    if (unseen) return absl::OkStatus();  // and never will be seen
  }
  // A guest that has taken the request cannot be stopped on its way.
  for (const Deadline deadline = In(taken_up_ ? kOthersSuspendTime : kSuspendTime);;) {
    ASSIGN_OR_RETURN(const XenDomainState state, xen_->StateOf(domain_));
    if (state.suspended) return xen_->Resume(domain_);
    if (state.shut_down || state.dying || Clock::now() > deadline) return absl::OkStatus();
    std::this_thread::sleep_for(kLookAgain);
  }
}

absl::Status XenSource::RollBack() {
  absl::Status result;
  if (pause_begun_) result.Update(TakeBackSuspension());
  if (tracking_) {
    log_.reset();
    const absl::Status disabled = DirtyLog::Disable(*xen_, domain_);
    if (disabled.ok()) tracking_ = false;
    result.Update(disabled);
  }
  Unmap();
  if (result.ok()) {
    pause_begun_ = false;
    paused_at_ = {};
  } else if (absl::IsNotFound(xen_->StateOf(domain_).status())) {
    return absl::NotFoundError("the domain has ended meanwhile");
  }
  return result;
}

absl::Status XenSource::LeaveStopped() {
  Unmap();
  return DirtyLog::Disable(*xen_, domain_);
}

}  // namespace ramferry
