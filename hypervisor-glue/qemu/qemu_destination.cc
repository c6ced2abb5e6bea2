#include "hypervisor-glue/qemu/qemu_destination.h"

#include <unistd.h>

#include <chrono>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/preflight.h"
#include "hypervisor-glue/qemu/process_memory.h"
#include "hypervisor-glue/qemu/qmp_announce.h"
#include "hypervisor-glue/qemu/qmp_json.h"

namespace ramferry {
namespace {

using std::chrono::seconds;

// For QEMU to take bytes of its device state.
constexpr seconds kWriteTime{20};
// From cont to the RESUME event.
constexpr seconds kResumeTime{20};

}  // namespace

QemuDestination::~QemuDestination() {
  if (!active_ && !discarded_) Discard().IgnoreError();
}

absl::Status QemuDestination::Prepare(const GuestDescription& description) {
  run_ = description.running;
  ASSIGN_OR_RETURN(inventory_, TakeInventory(*qmp_));
  ASSIGN_OR_RETURN(settings_, MigrationSettings::Read(*qmp_));
  std::vector<std::string> reasons = DestinationReasons(description, inventory_);
  if (absl::Status status = settings_.CheckDestination(); !status.ok()) {
    reasons.emplace_back(Message(status));
  }
  if (!reasons.empty()) return absl::FailedPreconditionError(JoinReasons(reasons));

  // Whatever its command line said: it must not start by itself when the device state is loaded.
  RETURN_IF_ERROR(qmp_->Execute("stop").status());
  ASSIGN_OR_RETURN(const auto maps, ReadMaps(pid()));
  for (const RegionDescription& region : description.regions) {
    for (const MemoryBackend& backend : inventory_.backends) {
      if (backend.id != region.name) continue;
      ASSIGN_OR_RETURN(MappedFile mapped, FindMappedFile(pid(), maps, backend.mem_path, backend.id,
                                                         backend.size, /*writable=*/true));
      if (const pid_t other = QemuThatMaps(mapped.path, pid()); other != 0) {
        return MemoryInUse(mapped.path, other);
      }
      ASSIGN_OR_RETURN(MemoryFile file, MemoryFile::Map(std::move(mapped.fd), region.size,
                                                        /*writable=*/true, mapped.path));
      // QEMU has put firmware into it; from here untouched means zero.
      RETURN_IF_ERROR(file.Clear());
      RegionDescription here = region;
      here.backing_page_size = file.backing_page_size();
      regions_.push_back({.description = here, .address = file.address(), .fd = file.fd()});
      files_.push_back(std::move(file));
    }
  }
  return absl::OkStatus();
}

absl::Status QemuDestination::StartIncoming() {
  RETURN_IF_ERROR(settings_.ApplyForDestination(*qmp_));
  ASSIGN_OR_RETURN(pipe_, StatePipe::Open(*qmp_));
  return qmp_->Execute("migrate-incoming", {{"uri", pipe_->uri()}}).status();
}

std::string QemuDestination::Diagnosis() const {
  return started_ != nullptr ? "; QEMU's own words: " + started_->LogTail()
                             : "; see the output of the destination's QEMU";
}

absl::Status QemuDestination::LoadDeviceState(std::span<const std::byte> bytes) {
  if (pipe_ == nullptr) RETURN_IF_ERROR(StartIncoming());
  if (absl::Status status = pipe_->Write(bytes, In(kWriteTime)); !status.ok()) {
    return absl::Status(status.code(), Message(status) + Diagnosis());
  }
  return absl::OkStatus();
}

absl::Status QemuDestination::FinishDeviceState(Deadline deadline) {
  if (pipe_ == nullptr) return absl::InvalidArgumentError("the guest came without device state");
  pipe_->CloseWrite();
  const auto event = qmp_->WaitEvent(
      [](const QmpEvent& candidate) {
        if (candidate.name != "MIGRATION" || !candidate.data.is_object()) return false;
        const std::string status = Field<std::string>(candidate.data, "status");
        return status == "completed" || status == "failed";
      },
      deadline);
  if (!event.ok() || Field<std::string>(event->data, "status") != "completed") {
    return absl::AbortedError("the destination's QEMU could not load the guest's devices" +
                              Diagnosis());
  }
  return absl::OkStatus();
}

absl::Status QemuDestination::Activate() {
  if (run_) {
    // A QEMU that has ended by now has certainly not run the guest.
    RETURN_IF_ERROR(qmp_->Execute("query-status").status());
    qmp_->ForgetEvents();
    const auto told = qmp_->Execute("cont");
    // QEMU's own refusal (a disk that is locked, say) means that it did not start. No answer at all
    // may mean anything.
    if (!told.ok() && absl::IsFailedPrecondition(told.status())) return told.status();
    active_ = true;
    RETURN_IF_ERROR(told.status());
    RETURN_IF_ERROR(qmp_->WaitEvent([](const QmpEvent& event) { return event.name == "RESUME"; },
                                    In(kResumeTime))
                        .status());
    if (const absl::Status announced = AnnounceSelf(*qmp_); !announced.ok()) {
      return absl::AbortedError("the guest runs, but its network was not told: " +
                                Message(announced));
    }
  }
  active_ = true;
  return absl::OkStatus();
}

absl::Status QemuDestination::FinishActivation() {
  pipe_.reset();
  return settings_.Restore(*qmp_);
}

absl::Status QemuDestination::Discard() {
  if (discarded_) return absl::OkStatus();
  discarded_ = true;
  absl::Status result;
  if (started_ != nullptr) {
    started_->Kill();
    ::unlink(qmp_->path().c_str());
    for (const std::string& file : own_files_) ::unlink(file.c_str());
  } else if (pipe_ != nullptr) {
    // Its incoming migration has begun and cannot begin again: this QEMU is of no more use.
    qmp_->Execute("quit").status().IgnoreError();
  } else {
    result.Update(settings_.Restore(*qmp_));
  }
  pipe_.reset();
  for (const MemoryFile& file : files_) result.Update(file.Clear());
  return result;
}

}  // namespace ramferry
