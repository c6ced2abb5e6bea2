// A running, unmodified QEMU as the source of a migration, attached through its QMP socket.
//
//   ASSIGN_OR_RETURN(auto guest, QemuSource::Attach("/run/guest.qmp"));
//
// Attach makes the whole preflight of this host (FailedPrecondition with every reason) and touches
// nothing. The dirty pages come from the kernel (tracking/write_tracker.h), the device state from
// QEMU's own migration with everything in shared files left out:
//
//   BeginPause       migrate fd:...          devices' small memory flows, then QEMU stops the guest
//   WaitPaused       event pre-switchover    ... and waits
//   SaveDeviceState  migrate-continue        the device state flows; QEMU is then in postmigrate
//
// Threads as SourceGuest says; the QMP socket is used from the coordinating thread only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "hypervisor-glue/guest.h"
#include "hypervisor-glue/qemu/cpu_limit.h"
#include "hypervisor-glue/qemu/inventory.h"
#include "hypervisor-glue/qemu/migration_settings.h"
#include "hypervisor-glue/qemu/qemu_again.h"
#include "hypervisor-glue/qemu/qmp_client.h"
#include "hypervisor-glue/qemu/state_pipe.h"
#include "hypervisor-glue/tracking/memory_file.h"
#include "hypervisor-glue/tracking/write_tracker.h"

namespace ramferry {

class QemuSource : public SourceGuest {
 public:
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<QemuSource>> Attach(
      const std::string& qmp_path);

  // The guest as it would be described to a destination, whether or not it can leave this host.
  [[nodiscard]] static absl::StatusOr<GuestDescription> Survey(const std::string& qmp_path);

  // Takes up a guest that another ramferry, now dead, had begun to move: whatever its QEMU is in
  // the middle of, RollBack and Commit work. `undo` is that one's undo_record; `running` as
  // described then. NotFound: that very QEMU has ended. regions() lacks memory that is gone.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<QemuSource>> TakeUp(
      const std::string& qmp_path, const std::string& undo, bool running);

  [[nodiscard]] const QemuInventory& inventory() const { return inventory_; }
  [[nodiscard]] const Tracking& tracking() const { return tracking_; }
  [[nodiscard]] pid_t pid() const { return qmp_->peer_pid(); }

  const GuestDescription& description() const override { return description_; }
  std::span<const MappedRegion> regions() const override { return regions_; }
  absl::Status StartTracking() override;
  absl::Status PopulatedRuns(const Slice& slice, PageRuns& runs) override;
  absl::Status CollectDirty(const Slice& slice, PageRuns& runs) override;
  absl::Status PeekDirty(const Slice& slice, PageRuns& runs) override;
  void NodesOfPages(RegionId region, std::span<const uint64_t> pages,
                    std::span<int> nodes) const override;
  std::vector<VcpuPlace> Vcpus() const override { return VcpusOf(inventory_); }
  bool needs_quiesced_collection() const override {
    return inventory_.has_direct_disk() || tracking_.method == TrackingMethod::kSoftDirty;
  }
  bool sees_writes_only_when_quiesced() const override {
    return tracking_.method == TrackingMethod::kSoftDirty;
  }
  absl::Status Quiesce() override;
  absl::Status Unquiesce() override;
  // Where its virtual CPUs have cgroups of their own.
  absl::Status Throttle(double share) override;
  absl::Status BeginPause(DeviceStateSink sink) override;
  absl::StatusOr<bool> WaitPaused(Deadline deadline) override;
  Deadline paused_at() const override { return paused_at_; }
  absl::Status SaveDeviceState() override;
  absl::Status Commit() override;
  absl::Status RollBack() override;
  absl::Status LeaveStopped() override;
  std::string undo_record() const override;

 private:
  QemuSource(std::unique_ptr<QmpClient> qmp, QemuInventory inventory)
      : qmp_(std::move(qmp)), inventory_(std::move(inventory)), process_(ProcessRecord(*qmp_)) {}
  [[nodiscard]] absl::Status MapMemory();
  [[nodiscard]] absl::Status CheckTracking();
  [[nodiscard]] absl::Status GatherWhileStopped();
  [[nodiscard]] std::vector<pid_t> VcpuThreads() const;
  // QEMU's own word on why its migration failed.
  [[nodiscard]] absl::Status MigrationError();
  [[nodiscard]] absl::Status EndQemuMigration();
  [[nodiscard]] absl::Status AwaitRunState();
  [[nodiscard]] absl::Status Undo();

  std::unique_ptr<QmpClient> qmp_;
  QemuInventory inventory_;
  nlohmann::json process_;  // ProcessRecord
  MigrationSettings settings_;
  GuestDescription description_;
  std::vector<MemoryFile> files_;
  std::vector<MappedRegion> regions_;
  std::vector<TrackedRange> ranges_;  // the same regions in QEMU's address space
  Tracking tracking_;
  std::unique_ptr<WriteTracker> tracker_;
  std::unique_ptr<StatePipe> pipe_;
  CpuLimit cpu_limit_;        // of no group: there are none of its own
  std::string no_cpu_limit_;  // why
  Deadline paused_at_;
  bool quiesced_ = false;
  bool pause_begun_ = false;
  bool state_saved_ = false;
};

}  // namespace ramferry
