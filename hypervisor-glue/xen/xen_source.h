// A running domain of this host's Xen as the source of a migration.
//
//   ASSIGN_OR_RETURN(auto guest, XenSource::Attach("web1"));   // name, UUID or number
//
// Attach makes the whole preflight of this host (FailedPrecondition with every reason) and changes
// nothing.
//
//   StartTracking    memory is mapped, Xen's log-dirty mode switched on
//   BeginPause       the guest is asked to suspend (xenstore's control/shutdown); one without Xen
//                    drivers is suspended without asking
//   SaveDeviceState  clock, parameters and CPUs, as records of Xen's migration stream
//   Commit           `xl destroy`
//   RollBack         resumed as if never suspended, log-dirty off, nothing mapped
//
// Threads as SourceGuest says.
#pragma once

#include <memory>
#include <string>

#include "hypervisor-glue/guest.h"
#include "hypervisor-glue/xen/dirty_log.h"
#include "hypervisor-glue/xen/domain_memory.h"
#include "hypervisor-glue/xen/xen_control.h"

namespace ramferry {

class XenSource : public SourceGuest {
 public:
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<XenSource>> Attach(const std::string& name);

  // Takes up a domain that another ramferry, now dead, had begun to move: RollBack and Commit work.
  // `undo` is that one's undo_record. NotFound: that very domain is gone. Maps no memory.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<XenSource>> TakeUp(const std::string& undo,
                                                                         bool running);

  // Whether its CPUs may run now.
  [[nodiscard]] absl::StatusOr<bool> Runs() const;
  [[nodiscard]] const XenDomain& domain() const { return domain_; }

  const GuestDescription& description() const override { return description_; }
  std::span<const MappedRegion> regions() const override { return memory_.regions(); }
  absl::Status StartTracking() override;
  absl::Status PopulatedRuns(const Slice& slice, PageRuns& runs) override;
  absl::Status CollectDirty(const Slice& slice, PageRuns& runs) override;
  absl::Status PeekDirty(const Slice& slice, PageRuns& runs) override;
  absl::Status BeginPause(DeviceStateSink sink) override;
  absl::StatusOr<bool> WaitPaused(Deadline deadline) override;
  Deadline paused_at() const override { return paused_at_; }
  absl::Status SaveDeviceState() override;
  absl::Status Commit() override;
  absl::Status RollBack() override;
  absl::Status LeaveStopped() override;
  std::string undo_record() const override;

 private:
  XenSource(std::unique_ptr<XenControl> xen, XenDomain domain)
      : xen_(std::move(xen)), domain_(std::move(domain)) {}
  // Fills in the description and maps the memory.
  [[nodiscard]] absl::Status Describe(std::string configuration);
  // FailedPrecondition: the guest's memory is not the one that was mapped.
  [[nodiscard]] absl::Status CheckMemoryUnchanged() const;
  [[nodiscard]] absl::Status TakeBackSuspension();
  void Unmap();

  std::unique_ptr<XenControl> xen_;
  XenDomain domain_;
  GuestDescription description_;
  DomainMemory memory_;
  PageRuns ram_;
  uint64_t frames_ = 0;        // one more than the highest with memory
  uint64_t pages_ = 0;         // that the domain owned when its memory was mapped
  std::string memory_target_;  // what its balloon was told then
  std::unique_ptr<DirtyLog> log_;
  DeviceStateSink sink_;
  Deadline paused_at_;
  bool tracking_ = false;     // log-dirty mode may be on
  bool taken_up_ = false;     // what another process did to it is not known
  bool pause_begun_ = false;  // it may be about to suspend, or suspended
};

}  // namespace ramferry
