// Two hosts in one process, for tests of whole migrations without a hypervisor: a synthetic guest
// that works all the time, page channels over real TCP, a control channel that breaks on command.
//
//   MigrationSite site;
//   site.control().At(FakeControlPair::kToSource, 2, FakeFault::kLoseAndCut);
//   const MigrationReport report = site.Migrate();
//   site.ExpectOneOwner(report);
//
// Every call of the engine to either guest passes a hook, where a test fails it or does something
// at just that moment. The site notes by itself if both ends could ever have run at once.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/destination_migration.h"
#include "engine/records.h"
#include "engine/source_migration.h"
#include "hypervisor-glue/synthetic/synthetic_guest.h"
#include "tests/unit/engine_scratch.h"
#include "tests/unit/fake_control_channel.h"
#include "transport/tcp/tcp_connector.h"
#include "transport/tcp/tcp_listener.h"

namespace ramferry {

// Called before the engine's call of that name reaches the guest; an error is the call's result.
using GuestHook = std::function<absl::Status(std::string_view call)>;

// A synthetic guest seen through a hook.
class HookedSource : public SourceGuest {
 public:
  HookedSource(SyntheticGuest& guest, GuestHook hook) : guest_(guest), hook_(std::move(hook)) {}

  int stop_late = 0;  // so many times WaitPaused says that the guest still runs
  // Where its pages are said to be; null: where they are.
  std::function<int(RegionId region, uint64_t page)> node_of;

  void NodesOfPages(RegionId region, std::span<const uint64_t> pages,
                    std::span<int> nodes) const override {
    if (node_of == nullptr) return guest_.NodesOfPages(region, pages, nodes);
    for (size_t i = 0; i < pages.size(); ++i) nodes[i] = node_of(region, pages[i]);
  }
  const GuestDescription& description() const override { return guest_.description(); }
  std::span<const MappedRegion> regions() const override { return guest_.regions(); }
  absl::Status StartTracking() override {
    absl::Status status = hook_("StartTracking");
    return status.ok() ? guest_.StartTracking() : status;
  }
  absl::Status PopulatedRuns(const Slice& slice, PageRuns& runs) override {
    return guest_.PopulatedRuns(slice, runs);
  }
  absl::Status CollectDirty(const Slice& slice, PageRuns& runs) override {
    absl::Status status = hook_("CollectDirty");
    return status.ok() ? guest_.CollectDirty(slice, runs) : status;
  }
  absl::Status PeekDirty(const Slice& slice, PageRuns& runs) override {
    absl::Status status = hook_("PeekDirty");
    return status.ok() ? guest_.PeekDirty(slice, runs) : status;
  }
  bool needs_quiesced_collection() const override { return guest_.needs_quiesced_collection(); }
  absl::Status Quiesce() override {
    absl::Status status = hook_("Quiesce");
    return status.ok() ? guest_.Quiesce() : status;
  }
  absl::Status Unquiesce() override {
    absl::Status status = guest_.Unquiesce();
    status.Update(hook_("Unquiesce"));
    return status;
  }
  // A throttled guest writes nothing at all, until it is rolled back.
  absl::Status Throttle(double share) override {
    RETURN_IF_ERROR(hook_(share < 1 ? "Throttle" : "Unthrottle"));
    return share < 1 ? guest_.Quiesce() : absl::OkStatus();
  }
  absl::Status BeginPause(DeviceStateSink sink) override {
    absl::Status status = hook_("BeginPause");
    return status.ok() ? guest_.BeginPause(std::move(sink)) : status;
  }
  absl::StatusOr<bool> WaitPaused(Deadline deadline) override {
    if (absl::Status status = hook_("WaitPaused"); !status.ok()) return status;
    if (stop_late > 0) {
      --stop_late;
      return false;
    }
    return guest_.WaitPaused(deadline);
  }
  Deadline paused_at() const override { return guest_.paused_at(); }
  absl::Status SaveDeviceState() override {
    absl::Status status = hook_("SaveDeviceState");
    return status.ok() ? guest_.SaveDeviceState() : status;
  }
  absl::Status Commit() override {
    absl::Status status = hook_("Commit");
    return status.ok() ? guest_.Commit() : status;
  }
  absl::Status RollBack() override {
    absl::Status status = hook_("RollBack");
    return status.ok() ? guest_.RollBack() : status;
  }
  absl::Status LeaveStopped() override { return guest_.LeaveStopped(); }

 private:
  SyntheticGuest& guest_;
  const GuestHook hook_;
};

class HookedDestination : public DestinationGuest {
 public:
  HookedDestination(std::unique_ptr<SyntheticDestination> guest, GuestHook hook)
      : guest_(std::move(guest)), hook_(std::move(hook)) {}

  [[nodiscard]] bool discarded() const { return guest_->discarded(); }
  [[nodiscard]] const std::string& device_state() const { return guest_->device_state(); }
  [[nodiscard]] const std::vector<MemoryFile>& files() const { return guest_->files(); }

  std::span<const MappedRegion> regions() const override { return guest_->regions(); }
  absl::Status PopulatedRuns(const Slice& slice, PageRuns& runs) override {
    absl::Status status = hook_("PopulatedRuns");
    return status.ok() ? guest_->PopulatedRuns(slice, runs) : status;
  }
  void NodesOfPages(RegionId region, std::span<const uint64_t> pages,
                    std::span<int> nodes) const override {
    guest_->NodesOfPages(region, pages, nodes);
  }
  absl::Status LoadDeviceState(std::span<const std::byte> bytes) override {
    absl::Status status = hook_("LoadDeviceState");
    return status.ok() ? guest_->LoadDeviceState(bytes) : status;
  }
  absl::Status FinishDeviceState(Deadline deadline) override {
    absl::Status status = hook_("FinishDeviceState");
    return status.ok() ? guest_->FinishDeviceState(deadline) : status;
  }
  absl::Status Activate() override {
    absl::Status status = hook_("Activate");
    return status.ok() ? guest_->Activate() : status;
  }
  bool active() const override { return guest_->active(); }
  absl::Status Discard() override {
    absl::Status status = hook_("Discard");
    return status.ok() ? guest_->Discard() : status;
  }
  std::string locator() const override { return "synthetic"; }

 private:
  const std::unique_ptr<SyntheticDestination> guest_;
  const GuestHook hook_;
};

class MigrationSite : private DestinationHost, MigrationObserver, DestinationObserver {
 public:
  explicit MigrationSite(bool needs_quiesced_collection = false);
  ~MigrationSite() override;

  // Set before Migrate:
  MigrationOptions options{.workers = 2,
                           .answer_time = std::chrono::seconds(30),
                           .settle_time = std::chrono::seconds(30)};
  std::chrono::milliseconds ownership_time{30'000};
  GuestHook on_source;       // called from workers too
  GuestHook on_destination;  // also "Reserve"
  std::function<void(Stage)> on_stage;
  std::function<void(const RoundReport&)> on_round;
  std::function<void(const RoundProgress&)> on_progress;
  bool destination_answers = true;  // when asked to settle
  // It closes the connection when it is done, as `ramferry receive` does. Not by itself: a peer
  // that falls silent must not be heard of again.
  bool destination_hangs_up = false;
  bool destination_remembers = true;  // false: it was killed, and knows what its journal says
  int stop_late = 0;
  ChannelConnector* connector = nullptr;  // null: TCP
  // A transport that is preferred to it; null: none.
  ChannelConnector* better_connector = nullptr;
  ChannelListener* better_listener = nullptr;
  // What both ends are placed by; nothing: they are not.
  std::optional<HostTopology> host;
  std::function<int(RegionId region, uint64_t page)> node_of;
  LandingWishes landing;
  // Of the next migration.
  [[nodiscard]] FakeControlPair& control() { return *control_; }
  [[nodiscard]] Cancellation& cancel() { return *cancel_; }
  [[nodiscard]] Cancellation& destination_cancel() { return *destination_cancel_; }

  // Both ends, to their ends.
  MigrationReport Migrate();

  // Exactly one end has the guest, or nobody runs it and the journals will settle it; nothing that
  // the migration put up is left; the image is the same, bit by bit, if it moved.
  void ExpectOneOwner(const MigrationReport& report);
  void ExpectMigrated(const MigrationReport& report);
  // The guest works on the source as before, and can be migrated now.
  void ExpectRolledBack(const MigrationReport& report);

  [[nodiscard]] SyntheticGuest& guest() const { return *guest_; }
  [[nodiscard]] HookedDestination* destination() const { return arrived_.load(); }
  [[nodiscard]] const absl::Status& destination_status() const { return destination_status_; }
  [[nodiscard]] const Journal& journal(Role role) const {
    return role == Role::kSource ? source_journal_ : destination_journal_;
  }
  [[nodiscard]] absl::StatusOr<Verdict> Settle(const std::string& migration_id);
  [[nodiscard]] ByteCount destination_memory() const { return destination_memory_; }
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  [[nodiscard]] std::vector<std::string> SentToSource() const { return sent_[1]; }
  [[nodiscard]] std::vector<std::string> SentToDestination() const { return sent_[0]; }
  // All its memory entries fail from here on, as on a full disk; and work again.
  void BreakJournal(Role role) const;
  void MendJournal(Role role) const;
  // The entries that there are cannot be written again, as on a full disk; and can.
  void FillDisk(Role role) const;
  void FreeDisk(Role role) const;

 private:
  absl::StatusOr<std::unique_ptr<DestinationGuest>> Reserve(const GuestDescription& description,
                                                            const ReservationNote& note) override;
  using DestinationObserver::OnRound;
  void OnStage(Stage stage) override {
    if (on_stage != nullptr) on_stage(stage);
  }
  void OnRound(const RoundReport& round) override {
    if (on_round != nullptr) on_round(round);
  }
  void OnProgress(const RoundProgress& progress) override {
    if (on_progress != nullptr) on_progress(progress);
  }
  void OnNote(const std::string& note) override {
    const std::lock_guard lock(notes_mutex_);
    notes_.push_back(note);
  }
  absl::Status SourceCall(std::string_view call);
  absl::Status DestinationCall(std::string_view call);
  void Confirm(const std::string& migration_id);
  void Renew();

  const ScratchDirectory scratch_;
  const Journal source_journal_ = *Journal::Open(scratch_.path() + "/source");
  const Journal destination_journal_ = *Journal::Open(scratch_.path() + "/destination");
  Records records_{destination_journal_};
  std::unique_ptr<SyntheticGuest> guest_;
  std::unique_ptr<TcpListener> listener_;
  std::unique_ptr<TcpConnector> connector_;
  std::unique_ptr<FakeControlPair> control_;
  std::unique_ptr<Cancellation> cancel_;
  std::unique_ptr<Cancellation> destination_cancel_;
  std::unique_ptr<DestinationMigration> destination_;  // of the last migration, with its guest
  std::atomic<HookedDestination*> arrived_{nullptr};
  absl::Status destination_status_;
  std::vector<std::string> sent_[2];
  std::mutex notes_mutex_;
  std::vector<std::string> notes_;
  std::atomic<bool> both_could_run_{false};
  bool same_image_ = false;
  ByteCount destination_memory_;
};

}  // namespace ramferry
