#include "hypervisor-glue/synthetic/synthetic_guest.h"

#include <unistd.h>

#include <utility>

#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/tracking/uffd_tracker.h"

namespace ramferry {
namespace {

absl::Status MapAll(const std::vector<RegionDescription>& descriptions, bool can_register,
                    std::vector<MemoryFile>& files, std::vector<MappedRegion>& regions) {
  for (const RegionDescription& description : descriptions) {
    ASSIGN_OR_RETURN(MemoryFile file, MemoryFile::Create(description.size, description.name));
    regions.push_back({.description = description,
                       .address = file.address(),
                       .fd = file.fd(),
                       .can_register = can_register});
    files.push_back(std::move(file));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SyntheticGuest>> SyntheticGuest::Create(SyntheticOptions options) {
  std::unique_ptr<SyntheticGuest> guest(new SyntheticGuest(std::move(options)));
  guest->description_ = {.name = guest->options_.name,
                         .hypervisor = "synthetic",
                         .hypervisor_version = "1",
                         .machine = "synthetic",
                         .vcpus = 1,
                         .regions = guest->options_.regions};
  RETURN_IF_ERROR(MapAll(guest->options_.regions, guest->options_.can_register, guest->files_,
                         guest->regions_));
  return guest;
}

SyntheticGuest::~SyntheticGuest() {
  ended_ = true;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  for (std::thread& mutator : mutators_) mutator.join();
}

void SyntheticGuest::StartMutators(unsigned threads, const Mutator& mutator) {
  for (unsigned thread = 0; thread < threads; ++thread) {
    mutators_.emplace_back([this, thread, mutator] {
      std::unique_lock lock(mutex_);
      for (uint64_t step = 0; !ended_; ++step) {
        if (stopped_) {
          changed_.wait(lock, [this] { return !stopped_ || ended_; });
          if (ended_) return;
        }
        ++inside_;
        lock.unlock();
        mutator(regions_, thread, step);
        steps_.fetch_add(1, std::memory_order_relaxed);
        lock.lock();
        if (--inside_ == 0) changed_.notify_all();
      }
    });
  }
}

void SyntheticGuest::StopMutators() {
  std::unique_lock lock(mutex_);
  stopped_ = true;
  changed_.wait(lock, [this] { return inside_ == 0; });
}

void SyntheticGuest::ResumeMutators() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = false;
  }
  changed_.notify_all();
}

absl::Status SyntheticGuest::StartTracking() {
  ASSIGN_OR_RETURN(UniqueFd uffd, OpenOwnUserfaultfd());
  std::vector<TrackedRange> ranges;
  for (const MappedRegion& region : regions_) {
    ranges.push_back(
        {reinterpret_cast<uintptr_t>(region.address), region.description.size.value()});
  }
  ASSIGN_OR_RETURN(tracker_, UffdTracker::Create(::getpid(), std::move(uffd), std::move(ranges)));
  return absl::OkStatus();
}

absl::Status SyntheticGuest::PopulatedRuns(const Slice& slice, PageRuns& runs) {
  return files_[slice.region].PopulatedRuns(slice.pages, runs);
}

absl::Status SyntheticGuest::CollectDirty(const Slice& slice, PageRuns& runs) {
  return tracker_->Collect(slice.region, slice.pages, runs);
}

absl::Status SyntheticGuest::PeekDirty(const Slice& slice, PageRuns& runs) {
  return tracker_->Peek(slice.region, slice.pages, runs);
}

absl::Status SyntheticGuest::Quiesce() {
  StopMutators();
  return absl::OkStatus();
}

absl::Status SyntheticGuest::Unquiesce() {
  ResumeMutators();
  return absl::OkStatus();
}

absl::Status SyntheticGuest::BeginPause(DeviceStateSink sink) {
  sink_ = std::move(sink);
  return absl::OkStatus();
}

absl::StatusOr<bool> SyntheticGuest::WaitPaused(Deadline /*deadline*/) {
  StopMutators();
  paused_at_ = Clock::now();
  return true;
}

absl::Status SyntheticGuest::SaveDeviceState() {
  const std::string state = fmt::format("steps={}", steps_.load());
  return sink_(std::as_bytes(std::span(state)));
}

absl::Status SyntheticGuest::Commit() {
  tracker_.reset();
  committed_ = true;
  for (const MemoryFile& file : files_) RETURN_IF_ERROR(file.Clear());
  return absl::OkStatus();
}

absl::Status SyntheticGuest::RollBack() {
  tracker_.reset();
  ResumeMutators();
  return absl::OkStatus();
}

absl::Status SyntheticGuest::LeaveStopped() {
  tracker_.reset();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<SyntheticDestination>> SyntheticDestination::Create(
    const GuestDescription& description) {
  auto guest = std::make_unique<SyntheticDestination>();
  RETURN_IF_ERROR(MapAll(description.regions, true, guest->files_, guest->regions_));
  return guest;
}

absl::Status SyntheticDestination::LoadDeviceState(std::span<const std::byte> bytes) {
  device_state_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return absl::OkStatus();
}

absl::Status SyntheticDestination::FinishDeviceState(Deadline /*deadline*/) {
  if (device_state_.starts_with("steps=")) return absl::OkStatus();
  return absl::InvalidArgumentError("the synthetic guest's device state is not one");
}

absl::Status SyntheticDestination::Activate() {
  active_ = true;
  return absl::OkStatus();
}

absl::Status SyntheticDestination::Discard() {
  discarded_ = true;
  for (const MemoryFile& file : files_) RETURN_IF_ERROR(file.Clear());
  return absl::OkStatus();
}

}  // namespace ramferry
