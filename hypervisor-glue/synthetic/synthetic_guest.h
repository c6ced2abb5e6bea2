// A guest without a hypervisor: a memory file of this process that mutator threads write to,
// tracked like QEMU's memory. For tests and benchmarks; its memory, its tracking and its pauses are
// real.
//
//   ASSIGN_OR_RETURN(auto guest, SyntheticGuest::Create({.regions = {{"ram", MiB(64)}}}));
//   guest->StartMutators(2, [](MappedRegion region, uint64_t step) { ... write one page ... });
//
// Thread safety as SourceGuest says. The device state is the number of steps the mutators took.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "hypervisor-glue/guest.h"
#include "hypervisor-glue/tracking/memory_file.h"
#include "hypervisor-glue/tracking/write_tracker.h"

namespace ramferry {

struct SyntheticOptions {
  std::string name = "synthetic";
  std::vector<RegionDescription> regions;
  bool needs_quiesced_collection = false;
  // Pretends that registration with an RDMA device fails, as for Xen's foreign mappings.
  bool can_register = true;
};

// One step of a mutator: writes somewhere in the regions. `thread` from 0, `step` counts up.
using Mutator = std::function<void(std::span<const MappedRegion>, unsigned thread, uint64_t step)>;

class SyntheticGuest : public SourceGuest {
 public:
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<SyntheticGuest>> Create(
      SyntheticOptions options);
  ~SyntheticGuest() override;

  void StartMutators(unsigned threads, const Mutator& mutator);
  // Writable, for filling before the guest "runs".
  [[nodiscard]] std::span<const MappedRegion> memory() const { return regions_; }
  [[nodiscard]] bool running() const { return !stopped_.load(); }
  [[nodiscard]] bool tracked() const { return tracker_ != nullptr; }
  [[nodiscard]] bool committed() const { return committed_; }

  const GuestDescription& description() const override { return description_; }
  std::span<const MappedRegion> regions() const override { return regions_; }
  absl::Status StartTracking() override;
  absl::Status PopulatedRuns(const Slice& slice, PageRuns& runs) override;
  absl::Status CollectDirty(const Slice& slice, PageRuns& runs) override;
  absl::Status PeekDirty(const Slice& slice, PageRuns& runs) override;
  void NodesOfPages(RegionId region, std::span<const uint64_t> pages,
                    std::span<int> nodes) const override {
    files_[region].NodesOfPages(pages, nodes);
  }
  bool needs_quiesced_collection() const override { return options_.needs_quiesced_collection; }
  absl::Status Quiesce() override;
  absl::Status Unquiesce() override;
  absl::Status BeginPause(DeviceStateSink sink) override;
  absl::StatusOr<bool> WaitPaused(Deadline deadline) override;
  Deadline paused_at() const override { return paused_at_; }
  absl::Status SaveDeviceState() override;
  absl::Status Commit() override;
  absl::Status RollBack() override;
  absl::Status LeaveStopped() override;

 private:
  explicit SyntheticGuest(SyntheticOptions options) : options_(std::move(options)) {}
  void StopMutators();  // returns when no mutator is in a step
  void ResumeMutators();

  SyntheticOptions options_;
  GuestDescription description_;
  std::vector<MemoryFile> files_;
  std::vector<MappedRegion> regions_;
  std::unique_ptr<WriteTracker> tracker_;
  std::vector<std::thread> mutators_;
  std::atomic<bool> stopped_{false};
  std::atomic<bool> ended_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned inside_ = 0;  // mutators in a step; guarded by mutex_
  std::atomic<uint64_t> steps_{0};
  Deadline paused_at_;
  DeviceStateSink sink_;
  bool committed_ = false;
};

// The other end: memory files of this process.
class SyntheticDestination : public DestinationGuest {
 public:
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<SyntheticDestination>> Create(
      const GuestDescription& description);

  [[nodiscard]] bool discarded() const { return discarded_; }
  [[nodiscard]] const std::string& device_state() const { return device_state_; }
  [[nodiscard]] const std::vector<MemoryFile>& files() const { return files_; }

  std::span<const MappedRegion> regions() const override { return regions_; }
  absl::Status PopulatedRuns(const Slice& slice, PageRuns& runs) override {
    return files_[slice.region].PopulatedRuns(slice.pages, runs);
  }
  void NodesOfPages(RegionId region, std::span<const uint64_t> pages,
                    std::span<int> nodes) const override {
    files_[region].NodesOfPages(pages, nodes);
  }
  absl::Status LoadDeviceState(std::span<const std::byte> bytes) override;
  absl::Status FinishDeviceState(Deadline deadline) override;
  absl::Status Activate() override;
  bool active() const override { return active_; }
  absl::Status Discard() override;
  std::string locator() const override { return "synthetic"; }

 private:
  std::vector<MemoryFile> files_;
  std::vector<MappedRegion> regions_;
  std::string device_state_;
  bool active_ = false;
  bool discarded_ = false;
};

}  // namespace ramferry
