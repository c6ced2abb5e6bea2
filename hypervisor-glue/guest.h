// What a guest is to the engine: one interface for the side it leaves, one for the side it comes
// to.
//
// A hypervisor's glue implements both. The engine calls them in the order of the six stages of
// Clark et al., "Live Migration of Virtual Machines" (NSDI 2005), section 3.1; nothing else is
// needed to move a new kind of guest.
//
//   source:       StartTracking, { CollectDirty | PeekDirty }*, BeginPause, WaitPaused,
//                 SaveDeviceState, CollectDirty, then Commit or RollBack
//   destination:  (reserved by its factory) LoadDeviceState*, FinishDeviceState, then Activate
//                 or Discard
//
// Errors: every call returns a status a person can act on. After an error of a source call the
// engine calls RollBack, which must work in every state; after an error of a destination call it
// calls Discard.
//
// Threads: calls come from one thread at a time, except PopulatedRuns, CollectDirty and PeekDirty,
// which workers call at the same time for slices that do not overlap.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/guest_description.h"
#include "base/guest_memory.h"
#include "base/guest_place.h"
#include "base/page_run.h"

namespace ramferry {

// Takes the next bytes of a device-state stream, in order. Called from a thread of the glue.
using DeviceStateSink = std::function<absl::Status(std::span<const std::byte>)>;

class SourceGuest {
 public:
  virtual ~SourceGuest() = default;

  [[nodiscard]] virtual const GuestDescription& description() const = 0;
  // In the order of description().regions; valid as long as the object.
  [[nodiscard]] virtual std::span<const MappedRegion> regions() const = 0;

  // From here on every write to guest memory is seen by CollectDirty. The guest keeps running.
  [[nodiscard]] virtual absl::Status StartTracking() = 0;

  // Appends the runs of `slice` that may hold something other than zeros: where memory was ever
  // touched. Ascending. Costs nothing for holes.
  [[nodiscard]] virtual absl::Status PopulatedRuns(const Slice& slice, PageRuns& runs) = 0;

  // Read-and-clear: appends the runs of `slice` written since they were last collected (everything
  // counts as written before the first time), ascending. A write after this call is seen by the
  // next. The caller must read the pages after the call, never before.
  [[nodiscard]] virtual absl::Status CollectDirty(const Slice& slice, PageRuns& runs) = 0;

  // Like CollectDirty, without clearing.
  [[nodiscard]] virtual absl::Status PeekDirty(const Slice& slice, PageRuns& runs) = 0;

  // For each page of a region the NUMA node of this host that it is on; -1 where there is no page,
  // or where nobody can tell. Populates nothing.
  virtual void NodesOfPages(RegionId /*region*/, std::span<const uint64_t> /*pages*/,
                            std::span<int> nodes) const {
    std::fill(nodes.begin(), nodes.end(), -1);
  }
  // The virtual CPUs; empty: nobody can tell where they run.
  [[nodiscard]] virtual std::vector<VcpuPlace> Vcpus() const { return {}; }

  // True when device DMA can land in a page after it was collected (direct I/O). Then every
  // CollectDirty must be made between Quiesce and Unquiesce, or after WaitPaused.
  [[nodiscard]] virtual bool needs_quiesced_collection() const { return false; }
  // True when CollectDirty and PeekDirty know only of writes before the last Quiesce or WaitPaused.
  [[nodiscard]] virtual bool sees_writes_only_when_quiesced() const { return false; }
  // Stops the guest with no I/O in flight, for about a millisecond.
  [[nodiscard]] virtual absl::Status Quiesce() { return absl::OkStatus(); }
  [[nodiscard]] virtual absl::Status Unquiesce() { return absl::OkStatus(); }

  // Leaves the virtual CPUs this share of their time, 0.05 to 1; 1 takes the throttle off. It goes
  // with RollBack, LeaveStopped and Commit as well, and must go by itself, or by what undo_record
  // leads to, should this process die. Also after BeginPause.
  [[nodiscard]] virtual absl::Status Throttle(double /*share*/) {
    return absl::UnimplementedError("this kind of guest cannot be throttled");
  }

  // Asks the guest to stop, and starts to hand what it must send besides its regions to `sink`.
  // Returns at once; the guest may run on for some milliseconds. `sink` must stay valid until
  // SaveDeviceState or RollBack has returned.
  [[nodiscard]] virtual absl::Status BeginPause(DeviceStateSink sink) = 0;

  // Waits until the guest has stopped: true, or false at the deadline (the guest still runs).
  [[nodiscard]] virtual absl::StatusOr<bool> WaitPaused(Deadline deadline) = 0;

  // When the guest stopped, once WaitPaused has said true.
  [[nodiscard]] virtual Deadline paused_at() const = 0;

  // Hands the rest of the device state to the sink and returns when all of it was taken. The guest
  // then stays stopped, whatever happens to this process. It may have written guest memory: collect
  // once more afterwards.
  [[nodiscard]] virtual absl::Status SaveDeviceState() = 0;

  // The guest runs elsewhere now: discards this copy of it and frees its memory. Never call it
  // before the destination owns the guest. An error here loses nothing.
  [[nodiscard]] virtual absl::Status Commit() = 0;

  // Undoes everything, in any state before Commit: the guest runs (or is paused) as before
  // StartTracking, nothing of Ramferry is left in it. Idempotent. NotFound: the guest itself has
  // ended, so that nothing is left to undo.
  [[nodiscard]] virtual absl::Status RollBack() = 0;

  // Stops touching the guest and leaves it stopped, for the case that its ownership is in doubt.
  [[nodiscard]] virtual absl::Status LeaveStopped() = 0;

  // What the glue needs to undo or end this migration should this process die: its own text, kept
  // in the journal. Valid from the start.
  [[nodiscard]] virtual std::string undo_record() const { return ""; }
};

class DestinationGuest {
 public:
  virtual ~DestinationGuest() = default;

  // Where the guest's memory lands: writable, all zeros and unpopulated at the start, numbered as
  // in the description it was reserved from.
  [[nodiscard]] virtual std::span<const MappedRegion> regions() const = 0;

  // As SourceGuest::PopulatedRuns; from one thread.
  [[nodiscard]] virtual absl::Status PopulatedRuns(const Slice& slice, PageRuns& runs) = 0;

  // As SourceGuest::NodesOfPages and Vcpus.
  virtual void NodesOfPages(RegionId /*region*/, std::span<const uint64_t> /*pages*/,
                            std::span<int> nodes) const {
    std::fill(nodes.begin(), nodes.end(), -1);
  }
  [[nodiscard]] virtual std::vector<VcpuPlace> Vcpus() const { return {}; }

  // Feeds the next bytes of the device-state stream.
  [[nodiscard]] virtual absl::Status LoadDeviceState(std::span<const std::byte> bytes) = 0;

  // Returns when the whole device state has been loaded: the guest could run from here.
  [[nodiscard]] virtual absl::Status FinishDeviceState(Deadline deadline) = 0;

  // Runs the guest (unless its owner had paused it) and announces its network addresses.
  // Unavailable, and active(): the hypervisor ended just then, and nobody can say whether the guest
  // ran for a moment.
  [[nodiscard]] virtual absl::Status Activate() = 0;
  // What can wait until the source has been told: tidying up. An error here loses nothing.
  [[nodiscard]] virtual absl::Status FinishActivation() { return absl::OkStatus(); }
  // The guest runs, or may run, since Activate: it cannot be given back any more.
  [[nodiscard]] virtual bool active() const = 0;

  // Gives the reservation back: nothing of the guest is left on this host. Idempotent.
  [[nodiscard]] virtual absl::Status Discard() = 0;

  // How to find the guest later, in the journal's and a person's words (e.g. its QMP socket).
  [[nodiscard]] virtual std::string locator() const = 0;
  // As SourceGuest::undo_record.
  [[nodiscard]] virtual std::string undo_record() const { return ""; }
};

// Writes down, before it is done, what is about to be made for a guest (DestinationGuest::locator
// and undo_record): whoever finds that after a crash can undo it. An error stops the reservation.
using ReservationNote =
    std::function<absl::Status(const std::string& locator, const std::string& undo_record)>;

// A place where guests can come to. Reserve refuses (FailedPrecondition or ResourceExhausted) with
// every reason, one a line, and then has left nothing behind. It calls `note` before it makes
// anything that would outlive this process; one that makes nothing need not.
class DestinationHost {
 public:
  virtual ~DestinationHost() = default;
  [[nodiscard]] virtual absl::StatusOr<std::unique_ptr<DestinationGuest>> Reserve(
      const GuestDescription& description, const ReservationNote& note) = 0;
};

}  // namespace ramferry
