#include "engine/destination_migration.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/host_identity.h"
#include "base/status.h"
#include "engine/cancellable_receive.h"
#include "engine/image_digest.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace ramferry {
namespace {

using std::chrono::seconds;

// For the hypervisor to load its devices.
constexpr seconds kLoadTime{60};

absl::Status Unexpected(const ControlMessage& message, const char* due) {
  return absl::InvalidArgumentError(
      fmt::format("the source sent {} where {} was due", NameOf(message), due));
}

}  // namespace

Verdict VerdictOf(const JournalEntry& entry) {
  if (entry.phase == Phase::kActivated) return Verdict::kOwned;
  if (entry.phase == Phase::kReleased) return Verdict::kReleased;
  if (WriterLives(entry)) return Verdict::kUndecided;
  // Nobody is at work on it. Activating: it may have run, for all we know.
  return entry.phase == Phase::kActivating ? Verdict::kUnknown : Verdict::kUndecided;
}

absl::Status DestinationMigration::WriteJournal(Phase phase) {
  entry_.phase = phase;
  journaled_ = true;
  absl::Status written = context_.journal.Write(entry_);
  unwritten_ = !written.ok();
  return written;
}

// Adds what the listeners of a transport offer for this guest. The last reason of one that cannot.
absl::Status DestinationMigration::Offer(const std::string& transport,
                                         std::vector<ChannelOffer>& offers) {
  absl::Status failure;
  for (ChannelListener* listener : context_.listeners) {
    if (listener->transport() != transport) continue;
    auto receiver = listener->Expect(guest_->regions(), landing_.channels);
    if (!receiver.ok()) {
      failure = receiver.status();
      context_.observer.OnNote(fmt::format("no {}: {}", transport, Message(failure)));
      continue;
    }
    offers.push_back((*receiver)->offer());
    receivers_.push_back(*std::move(receiver));
  }
  return failure;
}

// Ends the receivers of a transport: when this returns, nothing lands by them any more.
void DestinationMigration::Drop(const std::string& transport) {
  for (auto& receiver : receivers_) {
    if (receiver->offer().transport == transport) receiver->Stop();
  }
  std::erase_if(receivers_,
                [&](const auto& receiver) { return receiver->offer().transport == transport; });
}

absl::StatusOr<ControlMessage> DestinationMigration::Receive(Deadline deadline) {
  auto message = ReceiveUnlessCancelled(*control_, context_.cancel, deadline);
  if (absl::IsDeadlineExceeded(message.status())) {
    return absl::DeadlineExceededError("the source went silent");
  }
  RETURN_IF_ERROR(message.status());
  if (const auto* abort = std::get_if<Abort>(&*message)) {
    source_gave_up_ = true;
    return absl::AbortedError("the source gave up: " + abort->reason);
  }
  return message;
}

absl::Status DestinationMigration::Run(ControlChannel& control) {
  control_ = &control;
  absl::Status status = Greet();
  if (status.ok()) status = TakeReservation();
  if (status.ok()) status = TakeImage();
  if (status.ok()) status = AwaitOwnership();
  if (status.ok()) {
    status = Activate();
  } else {
    Release(status);
  }
  context_.observer.OnEnd(entry_.guest, status);
  return status;
}

absl::Status DestinationMigration::Greet() {
  ASSIGN_OR_RETURN(const ControlMessage message, Receive(In(context_.answer_time)));
  const auto* hello = std::get_if<Hello>(&message);
  if (hello == nullptr) return Unexpected(message, "Hello");
  const uint32_t version = std::min(hello->newest_version, kProtocolVersion);
  if (version < hello->oldest_version || version < kOldestProtocolVersion) {
    return absl::FailedPreconditionError(
        fmt::format("{} speaks protocol versions {} to {}, this ramferry {} to {}: use the same "
                    "release on both "
                    "hosts",
                    hello->software, hello->oldest_version, hello->newest_version,
                    kOldestProtocolVersion, kProtocolVersion));
  }
  // A migration id names a journal entry: an old one must not be written over.
  const auto known = context_.journal.Read(hello->migration_id, Role::kDestination);
  if (known.ok()) {
    return absl::AlreadyExistsError("migration " + hello->migration_id +
                                    " is known here already: start a new one");
  }
  if (!absl::IsNotFound(known.status())) return known.status();
  entry_ = {.migration_id = hello->migration_id,
            .role = Role::kDestination,
            .phase = Phase::kStarting,
            .peer = control_->peer_name()};
  StampWithThisProcess(entry_);
  return control_->Send(HelloReply{.version = version,
                                   .software = "ramferry " RAMFERRY_VERSION,
                                   .host = HostName(),
                                   .boot_id = HostBootId()});
}

absl::Status DestinationMigration::TakeReservation() {
  ASSIGN_OR_RETURN(const ControlMessage message, Receive(In(context_.answer_time)));
  const auto* reserve = std::get_if<Reserve>(&message);
  if (reserve == nullptr) return Unexpected(message, "Reserve");
  entry_.guest = reserve->guest.name;
  entry_.running = reserve->guest.running;
  ASSIGN_OR_RETURN(guest_,
                   context_.host.Reserve(reserve->guest, [this](const std::string& locator,
                                                                const std::string& undo_record) {
                     entry_.locator = locator;
                     entry_.undo = undo_record;
                     return WriteJournal(Phase::kStarting);
                   }));
  RETURN_IF_ERROR(PlaceGuest(*reserve));
  entry_.locator = guest_->locator();
  entry_.undo = guest_->undo_record();
  RETURN_IF_ERROR(WriteJournal(Phase::kReserved));
  ForgetEarlier();
  Reserved reserved;
  absl::Status failure = absl::FailedPreconditionError(
      fmt::format("the source can send guest memory over {}, this host takes it over none of these",
                  fmt::join(reserve->transports, ", ")));
  for (const std::string& transport : reserve->transports) {
    // Another transport may do.
    if (absl::Status status = Offer(transport, reserved.offers); !status.ok()) failure = status;
  }
  if (reserved.offers.empty()) return failure;
  context_.observer.OnReserved(entry_.migration_id, reserve->guest, entry_.peer);
  return control_->Send(reserved);
}

absl::Status DestinationMigration::PlaceGuest(const Reserve& reserve) {
  landing_.channels.resize(reserve.channels);
  if (context_.host_topology == nullptr) return absl::OkStatus();
  const auto host = context_.host_topology();
  if (!host.ok()) {  // slower, and no harm
    context_.observer.OnNote(Message(host.status()));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(landing_, PlaceLanding(*host, context_.landing, reserve, *guest_));
  for (const std::string& note : landing_.plan.notes) context_.observer.OnNote(note);
  return absl::OkStatus();
}

// After the guest has been told to run: to look takes time.
void DestinationMigration::CheckPlacement() {
  for (const std::string& line : landing_.Check(*guest_)) context_.observer.OnNote(line);
}

// A source settles a guest's earlier migrations before it begins another, so that it asks about
// them no more; its confirmation of one of them may have been lost.
void DestinationMigration::ForgetEarlier() {
  const auto known = context_.journal.ReadAll();
  if (!known.ok()) return context_.observer.OnNote(Message(known.status()));
  // None of them is of a guest whose QEMU is here still: this one would not have been reserved.
  for (const DamagedEntry& damaged : known->damaged) context_.observer.OnNote(Describe(damaged));
  for (const JournalEntry& entry : known->entries) {
    if (!Settled(entry) || entry.guest != entry_.guest || entry.peer != entry_.peer) continue;
    context_.journal.Remove(entry.migration_id, Role::kDestination).IgnoreError();
  }
}

absl::Status DestinationMigration::TakeImage() {
  for (;;) {
    // A round may take hours at a low rate; a dead peer is noticed by the channels' keepalives.
    ASSIGN_OR_RETURN(ControlMessage message, Receive(Deadline::max()));
    if (const auto* note = std::get_if<RoundNote>(&message)) {
      context_.observer.OnRound(entry_.guest, *note);
    } else if (auto* state = std::get_if<DeviceState>(&message)) {
      state_bytes_ += state->bytes.size();
      if (!paused_) {
        RETURN_IF_ERROR(guest_->LoadDeviceState(state->bytes));
        continue;
      }
      if (held_state_.size() + state->bytes.size() > context_.most_held_state) {
        return absl::ResourceExhaustedError(
            fmt::format("the guest's device state is larger than {} bytes, which is all that is "
                        "held while a guest is stopped",
                        context_.most_held_state));
      }
      held_state_.insert(held_state_.end(), state->bytes.begin(), state->bytes.end());
    } else if (const auto* drop = std::get_if<DropTransport>(&message)) {
      Drop(drop->transport);
      TransportDropped dropped{.transport = drop->transport};
      // Not to be able to is no error here: the source may have other offers.
      if (drop->offer_again) Offer(drop->transport, dropped.offers).IgnoreError();
      RETURN_IF_ERROR(control_->Send(dropped));
    } else if (std::holds_alternative<Paused>(message)) {
      paused_ = true;
    } else if (const auto* complete = std::get_if<ImageComplete>(&message)) {
      return CompleteImage(*complete);
    } else {
      return Unexpected(message, "a round, device state or the end of the image");
    }
  }
}

absl::Status DestinationMigration::CompleteImage(const ImageComplete& complete) {
  if (!paused_) return absl::InvalidArgumentError("the image ended before the guest was stopped");
  if (complete.device_state_bytes != state_bytes_) {
    return absl::DataLossError(fmt::format("{} bytes of device state came, the source sent {}",
                                           state_bytes_, complete.device_state_bytes));
  }
  // Every channel was flushed by the source; from here nobody may write to this memory but the
  // guest.
  for (const auto& receiver : receivers_) receiver->Stop();
  // Loading may write guest memory (and some devices read it): compare before.
  RETURN_IF_ERROR(Verify(complete.digests));
  const Deadline verified = Clock::now();
  RETURN_IF_ERROR(guest_->LoadDeviceState(held_state_));
  RETURN_IF_ERROR(guest_->FinishDeviceState(In(kLoadTime)));
  RETURN_IF_ERROR(WriteJournal(Phase::kHolding));
  may_be_asked_ = true;
  return control_->Send(Holding{.device_state_ms = MillisecondsBetween(verified, Clock::now()),
                                .verified = !complete.digests.empty()});
}

absl::Status DestinationMigration::Verify(const std::vector<SliceDigest>& digests) {
  for (const SliceDigest& expected : digests) {
    const Slice& slice = expected.slice;
    const auto regions = guest_->regions();
    if (slice.region >= regions.size() || slice.pages.first > regions[slice.region].pages() ||
        slice.pages.count > regions[slice.region].pages() - slice.pages.first) {
      return absl::InvalidArgumentError("a digest is of memory that the guest does not have");
    }
    PageRuns populated;
    RETURN_IF_ERROR(guest_->PopulatedRuns(slice, populated));
    ASSIGN_OR_RETURN(const std::string digest, DigestSlice(regions[slice.region], populated));
    if (digest != expected.sha256) {
      return absl::DataLossError(fmt::format(
          "the memory differs in region {} pages {} to {}: this is a defect of Ramferry, please "
          "report it; the guest stays on the source",
          regions[slice.region].description.name, slice.pages.first, slice.pages.end()));
    }
  }
  return absl::OkStatus();
}

absl::Status DestinationMigration::AwaitOwnership() {
  ASSIGN_OR_RETURN(const ControlMessage message, Receive(In(context_.ownership_time)));
  if (std::holds_alternative<HandOver>(message)) return absl::OkStatus();
  return Unexpected(message, "HandOver");
}

// The guest is ours. Whatever fails before it is told to run gives it back.
absl::Status DestinationMigration::Activate() {
  const Deadline start = Clock::now();
  absl::Status status = WriteJournal(Phase::kActivating);
  if (status.ok()) status = guest_->Activate();
  if (!status.ok() && !guest_->active()) {
    // First out of "activating": after a crash, that and no guest would mean that it may have run.
    // Where the disk refuses even that, a lost answer and a crash would leave the rest to a person.
    if (const absl::Status back = BackToHolding(); !back.ok()) {
      context_.observer.OnNote(Message(back));
    }
    // Discard makes sure that it cannot run here; only then may the source be told so.
    if (const absl::Status gone = guest_->Discard(); !gone.ok()) {
      context_.observer.OnNote(fmt::format(
          "guest {} could not be started here ({}), and what is left of it could not be removed "
          "({}): see `ramferry status`",
          entry_.guest, Message(status), Message(gone)));
      LeaveUnsettled();
      return status;
    }
    WriteJournal(Phase::kReleased).IgnoreError();
    control_->Send(HandedBack{.reason = Message(status)}).IgnoreError();
    return status;
  }
  if (absl::IsUnavailable(status)) {
    context_.observer.OnNote(fmt::format(
        "the hypervisor of guest {} ended while it was told to run it ({}): the guest may have run "
        "for a moment. `ramferry resolve` on both hosts settles it",
        entry_.guest, Message(status)));
    LeaveUnsettled();
    return status;
  }
  if (!status.ok()) context_.observer.OnNote(Message(status));
  // The guest runs here, and nothing of what follows can change that. The source is told first: its
  // clock of the downtime runs until it knows.
  control_->Send(Activated{.resume_ms = MillisecondsBetween(start, Clock::now())}).IgnoreError();
  if (const absl::Status written = WriteJournal(Phase::kActivated); !written.ok()) {
    context_.observer.OnNote(Message(written));
  }
  if (const absl::Status finished = guest_->FinishActivation(); !finished.ok()) {
    context_.observer.OnNote(Message(finished));
  }
  CheckPlacement();
  return absl::OkStatus();
}

absl::Status DestinationMigration::BackToHolding() {
  absl::Status written = WriteJournal(Phase::kHolding);
  if (written.ok()) return written;
  // A full disk may have kept "activating" off it as well.
  const auto on_disk = context_.journal.Read(entry_.migration_id, Role::kDestination);
  return on_disk.ok() && on_disk->phase == Phase::kHolding ? absl::OkStatus() : written;
}

void DestinationMigration::LeaveUnsettled() {
  entry_.pid = 0;
  WriteJournal(entry_.phase).IgnoreError();
}

// Gives the reservation back: the guest never ran here and never will.
void DestinationMigration::Release(const absl::Status& why) {
  for (const auto& receiver : receivers_) receiver->Stop();
  absl::Status left;
  if (guest_ != nullptr) {
    landing_.Unbind(*guest_);
    left = guest_->Discard();
  }
  if (journaled_ && left.ok()) {
    // A source may ask only about a guest that it may have handed over: one that it heard we hold,
    // and that it did not itself take back. Nobody would ever confirm another record.
    if (may_be_asked_ && !source_gave_up_) {
      left = WriteJournal(Phase::kReleased);
    } else {
      left = context_.journal.Remove(entry_.migration_id, Role::kDestination);
      unwritten_ = unwritten_ && !left.ok();
    }
  }
  if (!left.ok()) {
    context_.observer.OnNote(Message(left));
    if (journaled_) LeaveUnsettled();
  }
  control_->Send(Refused{.reasons = {Message(why)}}).IgnoreError();
}

}  // namespace ramferry
