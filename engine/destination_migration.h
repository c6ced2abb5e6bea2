// The destination's side of one migration, and what it answers when asked about one afterwards.
//
//   DestinationMigration migration({.host = host, .listeners = {&tcp}, .journal = journal, ...});
//   migration.Run(control);       // blocks until the guest runs here, or nothing of it is left
//
// The rule: until the ownership message has come, any trouble means that the guest is given up here
// and nothing is left of it; from then on, only a guest that certainly never ran may be given back,
// and in so many words (HandedBack, or Verdict::kReleased).
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/cancellation.h"
#include "engine/journal.h"
#include "engine/landing_placement.h"
#include "hypervisor-glue/guest.h"
#include "transport/control_channel.h"
#include "transport/page_channel.h"

namespace ramferry {

// Told what happens; called from the thread of Run.
class DestinationObserver {
 public:
  virtual ~DestinationObserver() = default;
  virtual void OnReserved(const std::string& /*migration_id*/, const GuestDescription& /*guest*/,
                          const std::string& /*peer*/) {}
  virtual void OnRound(const std::string& /*guest*/, const RoundNote& /*note*/) {}
  // The end of it: OK when the guest runs here.
  virtual void OnEnd(const std::string& /*guest*/, const absl::Status& /*status*/) {}
  virtual void OnNote(const std::string& /*note*/) {}
};

struct DestinationContext {
  DestinationHost& host;
  std::vector<ChannelListener*> listeners;
  const Journal& journal;
  DestinationObserver& observer;
  const Cancellation& cancel;  // before the ownership message: gives the guest up
  // Between messages that must follow at once.
  std::chrono::milliseconds answer_time{30'000};
  // A source that holds its guest stopped has no reason to wait longer than this with its next
  // word.
  std::chrono::milliseconds ownership_time{60'000};
  // Device state that is held back in memory while the guest is stopped: QEMU's is under 1 MiB,
  // graphics and many queues add some.
  uint64_t most_held_state = 256 << 20;
  // What the guest's memory and the threads that receive it are placed by, as it is now; null: they
  // are not.
  std::function<absl::StatusOr<HostTopology>()> host_topology;
  LandingWishes landing;
};

class DestinationMigration {
 public:
  explicit DestinationMigration(DestinationContext context) : context_(std::move(context)) {}

  // OK: the guest runs here. Otherwise why not.
  absl::Status Run(ControlChannel& control);

  // After Run: the last word about this migration, where that could not be written (a full disk).
  // What the journal says instead is older, and would lead a next ramferry to the same end.
  [[nodiscard]] std::optional<JournalEntry> unwritten() const {
    return unwritten_ ? std::optional(entry_) : std::nullopt;
  }

 private:
  [[nodiscard]] absl::Status WriteJournal(Phase phase);
  [[nodiscard]] absl::StatusOr<ControlMessage> Receive(Deadline deadline);
  [[nodiscard]] absl::Status Greet();
  [[nodiscard]] absl::Status TakeReservation();
  void ForgetEarlier();
  [[nodiscard]] absl::Status PlaceGuest(const Reserve& reserve);
  void CheckPlacement();
  // Until the image is whole and the device state loaded.
  [[nodiscard]] absl::Status TakeImage();
  [[nodiscard]] absl::Status CompleteImage(const ImageComplete& complete);
  [[nodiscard]] absl::Status Verify(const std::vector<SliceDigest>& digests);
  [[nodiscard]] absl::Status AwaitOwnership();
  [[nodiscard]] absl::Status Activate();
  void Release(const absl::Status& why);
  absl::Status Offer(const std::string& transport, std::vector<ChannelOffer>& offers);
  void Drop(const std::string& transport);
  // Sees to it that "activating" is not on disk (any more).
  [[nodiscard]] absl::Status BackToHolding();
  // What is on disk is for the operator, or the next ramferry, to settle.
  void LeaveUnsettled();

  DestinationContext context_;
  ControlChannel* control_ = nullptr;
  JournalEntry entry_;
  std::unique_ptr<DestinationGuest> guest_;
  GuestLanding landing_;
  std::vector<std::unique_ptr<ChannelReceiver>> receivers_;
  std::vector<std::byte> held_state_;  // came after the guest's stop: loaded after its last page
  uint64_t state_bytes_ = 0;
  bool paused_ = false;
  bool journaled_ = false;       // the journal may have an entry
  bool unwritten_ = false;       // ... and it is not this one
  bool may_be_asked_ = false;    // the source may have sent its ownership message
  bool source_gave_up_ = false;  // in its own words, and so before any ownership message
};

// What the journal says about a migration, for ControlService::Settle. A migration whose ramferry
// is still at work is undecided until it has activated or released the guest.
[[nodiscard]] Verdict VerdictOf(const JournalEntry& entry);

}  // namespace ramferry
