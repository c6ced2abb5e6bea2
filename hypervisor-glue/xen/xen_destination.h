// The domain that a Xen guest comes to, and the host that builds it.
//
// Xen's toolstack builds the domain from a stream that Ramferry writes (migration_stream.h): until
// the static data ends at the reservation; then it waits for more, while Ramferry gives the domain
// its memory and lets pages land in it; the rest at the switch-over. docs/xen.md says why that is
// sound. Until FinishDeviceState a killed ramferry leaves nothing: xl finds the stream's end, and
// removes the domain.
#pragma once

#include <memory>
#include <string>

#include "hypervisor-glue/guest.h"
#include "hypervisor-glue/xen/blueprint.h"
#include "hypervisor-glue/xen/domain_memory.h"
#include "hypervisor-glue/xen/toolstack.h"
#include "hypervisor-glue/xen/xen_control.h"

namespace ramferry {

class XenDestination : public DestinationGuest {
 public:
  ~XenDestination() override;

  std::span<const MappedRegion> regions() const override { return memory_.regions(); }
  absl::Status PopulatedRuns(const Slice& slice, PageRuns& runs) override;
  absl::Status LoadDeviceState(std::span<const std::byte> bytes) override;
  absl::Status FinishDeviceState(Deadline deadline) override;
  absl::Status Activate() override;
  bool active() const override { return active_; }
  absl::Status Discard() override;
  std::string locator() const override { return "xen:" + domain_.name; }
  std::string undo_record() const override;

  // For a guest that had been handed over to a ramferry, now dead: sees to it that it runs, if it
  // is to (`run`). `undo` is that one's undo_record. NotFound: the domain has ended.
  [[nodiscard]] static absl::Status TakeOver(const std::string& undo, bool run);
  // For a guest that is not ours: removes what is left of it. FailedPrecondition: it runs.
  [[nodiscard]] static absl::Status DiscardLeftover(const std::string& undo);

 private:
  friend class XenHost;
  explicit XenDestination(std::unique_ptr<XenControl> xen) : xen_(std::move(xen)) {}
  [[nodiscard]] absl::Status Build(const XenBlueprint& blueprint, const std::string& name,
                                   const std::string& log);

  std::unique_ptr<XenControl> xen_;
  XenDomain domain_;
  std::unique_ptr<DomainBuilder> builder_;
  DomainMemory memory_;
  Bytes records_;  // of the stopped domain
  bool active_ = false;
};

class XenHost : public DestinationHost {
 public:
  // xl's logs go to `runtime_directory`.
  explicit XenHost(std::string runtime_directory)
      : runtime_directory_(std::move(runtime_directory)) {}

  absl::StatusOr<std::unique_ptr<DestinationGuest>> Reserve(const GuestDescription& description,
                                                            const ReservationNote& note) override;

 private:
  std::string runtime_directory_;
};

}  // namespace ramferry
