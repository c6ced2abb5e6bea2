// The QEMU that a guest comes to, and the host that provides one.
//
// Either one that the operator started with -incoming defer (QemuHostOptions::qmp_path), or one
// that is started from a guest definition found by the guest's name (guests). Until the switch-over
// nothing but its memory is used, so that an attached QEMU can serve the next attempt when one was
// cancelled.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "hypervisor-glue/guest.h"
#include "hypervisor-glue/qemu/guest_definition.h"
#include "hypervisor-glue/qemu/inventory.h"
#include "hypervisor-glue/qemu/migration_settings.h"
#include "hypervisor-glue/qemu/qemu_process.h"
#include "hypervisor-glue/qemu/qmp_client.h"
#include "hypervisor-glue/qemu/state_pipe.h"
#include "hypervisor-glue/tracking/memory_file.h"

namespace ramferry {

struct QemuHostOptions {
  std::string qmp_path;                             // an attached QEMU; empty: start one
  std::vector<GuestDefinition> guests;              // what may be started
  std::string runtime_directory = "/run/ramferry";  // QMP sockets and logs of started QEMUs
};

class QemuDestination : public DestinationGuest {
 public:
  ~QemuDestination() override;

  [[nodiscard]] pid_t pid() const { return qmp_->peer_pid(); }

  std::span<const MappedRegion> regions() const override { return regions_; }
  absl::Status PopulatedRuns(const Slice& slice, PageRuns& runs) override {
    return files_[slice.region].PopulatedRuns(slice.pages, runs);
  }
  void NodesOfPages(RegionId region, std::span<const uint64_t> pages,
                    std::span<int> nodes) const override {
    files_[region].NodesOfPages(pages, nodes);
  }
  std::vector<VcpuPlace> Vcpus() const override { return VcpusOf(inventory_); }
  absl::Status LoadDeviceState(std::span<const std::byte> bytes) override;
  absl::Status FinishDeviceState(Deadline deadline) override;
  absl::Status Activate() override;
  absl::Status FinishActivation() override;
  bool active() const override { return active_; }
  absl::Status Discard() override;
  std::string locator() const override { return "qemu:" + qmp_->path(); }
  std::string undo_record() const override;

  // For a guest that had been handed over to a ramferry, now dead: sees to it that it runs, if it
  // is to (`run`). `undo` is that one's undo_record. NotFound: its QEMU has ended.
  [[nodiscard]] static absl::Status TakeOver(const std::string& qmp_path, const std::string& undo,
                                             bool run);
  // For a guest that is not ours: ends its QEMU and removes what is left of it. An operator's QEMU
  // that nothing has been loaded into is left alone. FailedPrecondition: it runs, or cannot be
  // asked; one that we started and have never told to run (`may_run` false) need not answer.
  [[nodiscard]] static absl::Status DiscardLeftover(const std::string& qmp_path,
                                                    const std::string& undo, bool may_run);

 private:
  friend class QemuHost;
  QemuDestination(std::unique_ptr<QmpClient> qmp, std::unique_ptr<QemuProcess> started)
      : qmp_(std::move(qmp)), started_(std::move(started)) {}
  // Checks the QEMU against the description, maps and clears its memory.
  [[nodiscard]] absl::Status Prepare(const GuestDescription& description);
  [[nodiscard]] absl::Status StartIncoming();
  [[nodiscard]] std::string Diagnosis() const;

  std::unique_ptr<QmpClient> qmp_;
  std::unique_ptr<QemuProcess> started_;  // null: attached
  QemuInventory inventory_;
  MigrationSettings settings_;
  std::vector<MemoryFile> files_;
  std::vector<MappedRegion> regions_;
  std::vector<std::string> own_files_;  // memory files that did not exist before our QEMU
  std::unique_ptr<StatePipe> pipe_;
  bool run_ = true;
  bool active_ = false;
  bool discarded_ = false;
};

class QemuHost : public DestinationHost {
 public:
  explicit QemuHost(QemuHostOptions options) : options_(std::move(options)) {}

  absl::StatusOr<std::unique_ptr<DestinationGuest>> Reserve(const GuestDescription& description,
                                                            const ReservationNote& note) override;

 private:
  [[nodiscard]] absl::StatusOr<std::unique_ptr<QemuDestination>> Start(
      const GuestDescription& description, const ReservationNote& note);

  QemuHostOptions options_;
};

}  // namespace ramferry
