#include "hypervisor-glue/qemu/qemu_source.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/numa_memory.h"
#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/preflight.h"
#include "hypervisor-glue/qemu/process_memory.h"
#include "hypervisor-glue/qemu/qmp_announce.h"
#include "hypervisor-glue/qemu/qmp_json.h"
#include "hypervisor-glue/qemu/remote_userfaultfd.h"
#include "hypervisor-glue/qemu/time_limits.h"
#include "hypervisor-glue/tracking/soft_dirty_tracker.h"
#include "hypervisor-glue/tracking/uffd_tracker.h"

namespace ramferry {
namespace {

using std::chrono::seconds;

// For QEMU to save its devices, or to end a cancelled migration.
constexpr seconds kQemuTime{30};
// Between two looks at what QEMU's migration does when there is no event to wait for.
constexpr useconds_t kLookAgain = 1000;

bool IsMigration(const QmpEvent& event, std::initializer_list<const char*> states) {
  if (event.name != "MIGRATION" || !event.data.is_object()) return false;
  const auto status = event.data.find("status");
  if (status == event.data.end()) return false;
  for (const char* state : states) {
    if (*status == state) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::unique_ptr<QemuSource>> QemuSource::Attach(const std::string& qmp_path) {
  ASSIGN_OR_RETURN(auto qmp, QmpClient::Connect(qmp_path, In(kConnectTime)));
  ASSIGN_OR_RETURN(QemuInventory inventory, TakeInventory(*qmp));
  std::vector<std::string> reasons = SourceReasons(inventory);
  auto settings = MigrationSettings::Read(*qmp);
  if (!settings.ok()) return settings.status();
  auto tracking = ChooseTracking();
  for (const absl::Status& status : {settings->CheckSource(), tracking.status()}) {
    if (!status.ok()) reasons.emplace_back(Message(status));
  }
  std::unique_ptr<QemuSource> guest(new QemuSource(std::move(qmp), std::move(inventory)));
  guest->settings_ = *std::move(settings);
  if (reasons.empty()) {
    guest->tracking_ = *std::move(tracking);
    absl::Status status = guest->MapMemory();
    if (status.ok()) status = guest->CheckTracking();
    if (!status.ok()) reasons.emplace_back(Message(status));
    // In the undo record from the start, so that it is there should we be killed.
    auto limit = CpuLimit::Find(guest->pid(), guest->VcpuThreads());
    if (limit.ok()) {
      guest->cpu_limit_ = *std::move(limit);
    } else {
      guest->no_cpu_limit_ = Message(limit.status());
    }
  }
  if (!reasons.empty()) return absl::FailedPreconditionError(JoinReasons(reasons));
  return guest;
}

absl::StatusOr<GuestDescription> QemuSource::Survey(const std::string& qmp_path) {
  ASSIGN_OR_RETURN(const auto qmp, QmpClient::Connect(qmp_path, In(kConnectTime)));
  ASSIGN_OR_RETURN(const QemuInventory inventory, TakeInventory(*qmp));
  return Describe(inventory);
}

absl::StatusOr<std::unique_ptr<QemuSource>> QemuSource::TakeUp(const std::string& qmp_path,
                                                               const std::string& undo,
                                                               bool running) {
  const auto record = nlohmann::json::parse(undo, nullptr, /*allow_exceptions=*/false);
  ASSIGN_OR_RETURN(auto qmp, ConnectAgain(qmp_path, record));
  ASSIGN_OR_RETURN(QemuInventory inventory, TakeInventory(*qmp));
  std::unique_ptr<QemuSource> guest(new QemuSource(std::move(qmp), std::move(inventory)));
  ASSIGN_OR_RETURN(guest->settings_, MigrationSettings::FromUndoRecord(undo));
  // To undo or end the move its memory is not needed, only to free it: where there is none any more
  // there is nothing to free. And NotFound would say that QEMU has ended.
  if (absl::Status mapped = guest->MapMemory(); !mapped.ok() && !absl::IsNotFound(mapped)) {
    return mapped;
  }
  guest->cpu_limit_ = CpuLimit::FromRecord(Field<nlohmann::json>(record, "cpu_limit"));
  guest->description_.running = running;
  guest->pause_begun_ = guest->state_saved_ = true;
  return guest;
}

absl::Status QemuSource::MapMemory() {
  description_ = Describe(inventory_);
  ASSIGN_OR_RETURN(const auto maps, ReadMaps(pid()));
  for (size_t i = 0; i < inventory_.backends.size(); ++i) {
    const MemoryBackend& backend = inventory_.backends[i];
    // Opened for writing if we may, mapped for reading: kernels before 6.2 pin what an RDMA device
    // only reads as if it wrote there (transport/rdma/cm_link.cc).
    auto found = FindMappedFile(pid(), maps, backend.mem_path, backend.id, backend.size,
                                /*writable=*/true);
    if (!found.ok()) {
      found = FindMappedFile(pid(), maps, backend.mem_path, backend.id, backend.size,
                             /*writable=*/false);
    }
    ASSIGN_OR_RETURN(MappedFile mapped, std::move(found));
    ranges_.push_back({.address = mapped.address, .length = backend.size});
    ASSIGN_OR_RETURN(MemoryFile file, MemoryFile::Map(std::move(mapped.fd), ByteCount(backend.size),
                                                      /*writable=*/false, mapped.path));
    RegionDescription& region = description_.regions[i];
    region.backing_page_size = file.backing_page_size();
    if (const auto populated = file.Populated(); populated.ok()) {
      region.populated = std::min(*populated, region.size);
    }
    // A device would go on reading the page that the guest gave back, not the one it took since.
    regions_.push_back({.description = region,
                        .address = file.address(),
                        .fd = file.fd(),
                        .can_register = !inventory_.gives_memory_back()});
    files_.push_back(std::move(file));
  }
  return absl::OkStatus();
}

absl::Status QemuSource::CheckTracking() {
  // The files stay where they are from here on.
  for (size_t i = 0; i < ranges_.size(); ++i) ranges_[i].file = &files_[i];
  return tracking_.method == TrackingMethod::kSoftDirty ? CheckSoftDirtyMemory(pid(), ranges_)
                                                        : absl::OkStatus();
}

absl::Status QemuSource::StartTracking() {
  if (tracking_.method == TrackingMethod::kSoftDirty) {
    ASSIGN_OR_RETURN(tracker_, SoftDirtyTracker::Create(pid(), ranges_));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(UniqueFd uffd, TakeUserfaultfd(pid()));
  ASSIGN_OR_RETURN(tracker_, UffdTracker::Create(pid(), std::move(uffd), ranges_));
  return absl::OkStatus();
}

absl::Status QemuSource::GatherWhileStopped() {
  return tracker_ != nullptr ? tracker_->Gather() : absl::OkStatus();
}

absl::Status QemuSource::PopulatedRuns(const Slice& slice, PageRuns& runs) {
  return files_[slice.region].PopulatedRuns(slice.pages, runs);
}

// QEMU's mapping has every page that the guest has touched; ours has those that were read.
void QemuSource::NodesOfPages(RegionId region, std::span<const uint64_t> pages,
                              std::span<int> nodes) const {
  std::vector<uint64_t> addresses;
  addresses.reserve(pages.size());
  for (const uint64_t page : pages) {
    addresses.push_back(ranges_[region].address + (page << kPageShift));
  }
  NodesOfAddresses(pid(), addresses, nodes);
}

absl::Status QemuSource::CollectDirty(const Slice& slice, PageRuns& runs) {
  return tracker_->Collect(slice.region, slice.pages, runs);
}

absl::Status QemuSource::PeekDirty(const Slice& slice, PageRuns& runs) {
  return tracker_->Peek(slice.region, slice.pages, runs);
}

absl::Status QemuSource::Quiesce() {
  if (description_.running) {
    RETURN_IF_ERROR(qmp_->Execute("stop").status());  // returns with all disk I/O drained
    quiesced_ = true;
  }
  return GatherWhileStopped();
}

absl::Status QemuSource::Unquiesce() {
  if (!quiesced_) return absl::OkStatus();
  RETURN_IF_ERROR(qmp_->Execute("cont").status());
  quiesced_ = false;
  return absl::OkStatus();
}

std::vector<pid_t> QemuSource::VcpuThreads() const {
  std::vector<pid_t> threads;
  for (const QemuVcpu& vcpu : inventory_.vcpu_threads) {
    if (vcpu.thread > 0) threads.push_back(static_cast<pid_t>(vcpu.thread));
  }
  return threads;
}

absl::Status QemuSource::Throttle(double share) {
  if (share >= 1) return cpu_limit_.Remove();
  if (!cpu_limit_.empty()) return cpu_limit_.Set(share);
  return absl::FailedPreconditionError(
      fmt::format("its virtual CPUs have no cgroups (v2) of their own: {}; start QEMU in a systemd "
                  "scope, or by "
                  "libvirt",
                  no_cpu_limit_));
}

absl::Status QemuSource::BeginPause(DeviceStateSink sink) {
  // A guest that shut down or was reset to another state meanwhile must not be "migrated".
  ASSIGN_OR_RETURN(const auto status, qmp_->Execute("query-status"));
  const std::string state = Field<std::string>(status, "status");
  if (state != inventory_.status) {
    return absl::FailedPreconditionError(fmt::format(
        "the guest went into state '{}' during its migration; it stays on this host", state));
  }
  // The destination has opened the disks as they were, and with direct I/O collection is another.
  ASSIGN_OR_RETURN(const QemuDisks disks, TakeDisks(*qmp_));
  if (disks != inventory_.disks) {
    return absl::FailedPreconditionError(
        "the guest's disks changed during its migration (a medium, a snapshot, a block job, "
        "another "
        "cache mode); it stays on this host: try again when that is done");
  }
  pause_begun_ = true;
  RETURN_IF_ERROR(settings_.ApplyForSource(*qmp_));
  ASSIGN_OR_RETURN(pipe_, StatePipe::Open(*qmp_));
  pipe_->StartReading(std::move(sink));
  qmp_->ForgetEvents();
  return qmp_->Execute("migrate", {{"uri", pipe_->uri()}}).status();
}

absl::StatusOr<bool> QemuSource::WaitPaused(Deadline deadline) {
  Deadline stopped{};
  const auto event = qmp_->WaitEvent(
      [&stopped](const QmpEvent& candidate) {
        if (candidate.name == "STOP") stopped = candidate.when;
        return IsMigration(candidate, {"pre-switchover", "failed", "cancelled", "completed"});
      },
      deadline);
  if (stopped != Deadline{}) paused_at_ = stopped;
  if (absl::IsDeadlineExceeded(event.status())) return false;
  if (!event.ok()) return event.status();
  if (!IsMigration(*event, {"pre-switchover"})) return MigrationError();
  if (paused_at_ == Deadline{}) paused_at_ = event->when;  // it was paused all along
  RETURN_IF_ERROR(GatherWhileStopped());
  return true;
}

absl::Status QemuSource::SaveDeviceState() {
  RETURN_IF_ERROR(qmp_->Execute("migrate-continue", {{"state", "pre-switchover"}}).status());
  state_saved_ = true;
  ASSIGN_OR_RETURN(const QmpEvent event,
                   qmp_->WaitEvent(
                       [](const QmpEvent& candidate) {
                         return IsMigration(candidate, {"completed", "failed", "cancelled"});
                       },
                       In(kQemuTime)));
  if (!IsMigration(event, {"completed"})) return MigrationError();
  RETURN_IF_ERROR(pipe_->WaitEnd());
  return tracker_ != nullptr ? tracker_->GatherLast() : absl::OkStatus();  // what devices wrote
}

absl::Status QemuSource::MigrationError() {
  const auto answer = qmp_->Execute("query-migrate");
  if (!answer.ok()) return answer.status();
  const auto error = answer->find("error-desc");
  return absl::AbortedError(
      "QEMU could not save the guest's devices: " +
      (error != answer->end() && error->is_string() ? error->get<std::string>() : answer->dump()));
}

absl::Status QemuSource::Commit() {
  Throttle(1).IgnoreError();  // its process ends
  tracker_.reset();
  pipe_.reset();
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid(), 0)));
  const absl::Status told = qmp_->Execute("quit").status();
  if (!told.ok() && !HasEnded({{"process", process_}})) return told;
  if (process.valid()) {
    pollfd ended{.fd = process.get(), .events = POLLIN};
    if (::poll(&ended, 1, static_cast<int>(std::chrono::milliseconds(kQuitTime).count())) == 0) {
      return absl::DeadlineExceededError(fmt::format(
          "the guest runs on the destination, but its old QEMU (process {}) does not end: kill it",
          pid()));
    }
  }
  // The files outlive QEMU; the memory in them need not.
  for (const MemoryFile& file : files_) (void)file.Clear();
  return absl::OkStatus();
}

// Brings QEMU's own migration, in whatever state it is, to an end that the guest survives.
absl::Status QemuSource::EndQemuMigration() {
  const auto over = [](const std::string& status) {
    return status == "completed" || status == "failed" || status == "cancelled" || status == "none";
  };
  // QEMU may be blocked writing to us, and answers no command meanwhile.
  pipe_.reset();
  ASSIGN_OR_RETURN(auto migration, qmp_->Execute("query-migrate"));
  std::string status = Field<std::string>(migration, "status", "none");
  if (!over(status)) RETURN_IF_ERROR(qmp_->Execute("migrate_cancel").status());
  // Not by an event: it may have come before the cancel.
  for (const Deadline deadline = In(kQemuTime); !over(status); ::usleep(kLookAgain)) {
    ASSIGN_OR_RETURN(migration, qmp_->Execute("query-migrate"));
    status = Field<std::string>(migration, "status", "none");
    if (status == "cancelling") {
      // A cancel between QEMU's stop of the guest and its wait for migrate-continue is not seen by
      // that wait, which then has no end (QEMU 7.2: migration_maybe_pause). This ends it. QEMU
      // forgets what it did not wait for, and refuses this when the cancel is through meanwhile.
      qmp_->Execute("migrate-continue", {{"state", "cancelling"}}).status().IgnoreError();
    }
    if (Clock::now() > deadline) {
      return absl::DeadlineExceededError(
          fmt::format("QEMU's own migration was cancelled and does not end: it is {}", status));
    }
  }
  return AwaitRunState();
}

// QEMU says that its migration has failed some moments before it has let go of the guest.
absl::Status QemuSource::AwaitRunState() {
  for (const Deadline deadline = In(kQemuTime); Clock::now() < deadline; ::usleep(kLookAgain)) {
    ASSIGN_OR_RETURN(const auto status, qmp_->Execute("query-status"));
    if (Field<std::string>(status, "status") != "finish-migrate") return absl::OkStatus();
  }
  return absl::DeadlineExceededError("QEMU's own migration is over and still holds the guest");
}

absl::Status QemuSource::RollBack() {
  const absl::Status result = Undo();
  if (!result.ok() && HasEnded({{"process", process_}})) {
    return absl::NotFoundError("the guest's QEMU has ended meanwhile");
  }
  return result;
}

absl::Status QemuSource::Undo() {
  tracker_.reset();
  absl::Status result = Throttle(1);
  if (pause_begun_) {
    result.Update(EndQemuMigration());
  }
  if (description_.running && (pause_begun_ || quiesced_)) {
    // A cancelled migration resumes by itself, one that had completed does not.
    auto status = qmp_->Execute("query-status");
    result.Update(status.status());
    if (status.ok() && Field<std::string>(*status, "status") != "running" &&
        Field<std::string>(*status, "status") != "shutdown") {
      result.Update(qmp_->Execute("cont").status());
    }
    // The destination's QEMU may have announced the guest's addresses while it loaded them.
    if (state_saved_) result.Update(AnnounceSelf(*qmp_));
  }
  result.Update(settings_.Restore(*qmp_));
  if (result.ok()) {
    pause_begun_ = quiesced_ = state_saved_ = false;
    paused_at_ = {};
  }
  return result;
}

std::string QemuSource::undo_record() const {
  auto record = nlohmann::json::parse(settings_.UndoRecord());
  record["process"] = process_;
  if (!cpu_limit_.empty()) record["cpu_limit"] = cpu_limit_.record();
  return record.dump();
}

absl::Status QemuSource::LeaveStopped() {
  absl::Status result = Throttle(1);
  tracker_.reset();
  pipe_.reset();
  result.Update(settings_.Restore(*qmp_));
  return result;
}

}  // namespace ramferry
