// Stages 0 to 4 of the source, but for pre-copy (source_precopy.cc); what follows the ownership
// message is in source_activation.cc.
#include "engine/source_migration.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <thread>
#include <utility>

#include "base/host_identity.h"
#include "base/status.h"
#include "engine/on_cancel.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace ramferry {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// From asking the guest to stop to its stop: QEMU first sends its video memory and the like.
constexpr seconds kPauseTime{30};
// How long to wait for the stop before another small round is worth sending.
constexpr milliseconds kPauseStep{2};
// For the destination to say why it gave up.
constexpr seconds kReasonTime{2};
// A copy of all memory may have to be hashed on the other side before it says "holding".
constexpr seconds kVerifyTime{600};

}  // namespace

SourceMigration::SourceMigration(SourceContext context)
    : context_(std::move(context)),
      dialogue_(context_.control, context_.cancel, context_.options.answer_time),
      transports_(context_.guest, context_.control, context_.connectors, context_.observer,
                  context_.options, context_.cancel),
      forecast_(PagesIn(context_.guest.regions()), context_.options) {
  const GuestDescription& guest = context_.guest.description();
  report_.migration_id = NewUuid();
  report_.guest = guest.name;
  report_.destination = context_.destination;
  entry_ = {.migration_id = report_.migration_id,
            .role = Role::kSource,
            .guest = guest.name,
            .locator = context_.locator,
            .peer = context_.destination,
            .server_name = context_.server_name,
            .undo = context_.guest.undo_record(),
            .running = guest.running};
  StampWithThisProcess(entry_);
  report_.guest_pages = PagesIn(context_.guest.regions());
  // Each of its small rounds would stop such a guest for a moment.
  if (context_.guest.needs_quiesced_collection()) context_.options.mechanisms.instant = false;
}

absl::Status SourceMigration::Enter(Stage stage) {
  RETURN_IF_ERROR(stages_.Enter(stage));
  context_.observer.OnStage(stage);
  return absl::OkStatus();
}

absl::Status SourceMigration::WriteJournal(Phase phase) {
  entry_.phase = phase;
  RETURN_IF_ERROR(context_.journal.Write(entry_));
  journaled_ = true;
  return absl::OkStatus();
}

MigrationReport SourceMigration::Run() {
  started_ = Clock::now();
  const absl::Status status = RunStages();
  if (status.ok()) {
    Activation();
  } else {
    FinishHere(status);
  }
  report_.total_ms = MillisecondsBetween(started_, Clock::now());
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto to_seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  report_.cpu_seconds = to_seconds(usage.ru_utime) + to_seconds(usage.ru_stime);
  return report_;
}

absl::Status SourceMigration::RunStages() {
  RETURN_IF_ERROR(dialogue_.Introduce(report_.migration_id));
  RETURN_IF_ERROR(Enter(Stage::kReservation));
  ASSIGN_OR_RETURN(auto channels, ReserveAndConnect());

  RETURN_IF_ERROR(Enter(Stage::kPreCopy));
  RETURN_IF_ERROR(WriteJournal(Phase::kTracking));
  RETURN_IF_ERROR(context_.guest.StartTracking());
  Precopy precopy(
      context_.guest, std::move(channels),
      [this](const absl::Status& why) { return transports_.Replace(why); }, context_.options,
      context_.cancel, placement_ ? placement_->Layout() : WorkerLayout());
  precopy.SetWatch(
      [this](const RoundProgress& progress) { context_.observer.OnProgress(progress); });
  // A cancellation must not wait for a slow peer.
  const OnCancel watch(context_.cancel, [&precopy, this] {
    if (SourceOwns(stages_.stage())) precopy.Abort();
  });
  absl::Status status = PreCopy(precopy);
  if (status.ok()) status = StopAndCopy(precopy);
  if (status.ok()) status = Commitment();
  report_.bytes_sent = precopy.wire_bytes();
  ReportPlacement(precopy);
  if (const ChannelConnector* connector = transports_.connector(); connector != nullptr) {
    report_.transport = connector->transport();
    report_.port_counters = connector->counters();
  }
  report_.encrypted = transports_.chosen().encrypted;
  report_.paths = transports_.paths();
  // What a cancellation broke is only its consequence.
  if (!status.ok() && context_.cancel.requested()) return context_.cancel.status();
  if (status.ok() || !converges_ || stages_.stage() != Stage::kPreCopy) return status;
  return DestinationsReason(status);
}

// A destination that gives up closes its page channels first and then says why. The guest runs, so
// there is time to listen.
absl::Status SourceMigration::DestinationsReason(const absl::Status& status) {
  for (const Deadline deadline = In(kReasonTime); Clock::now() < deadline;) {
    const auto message = context_.control.Receive(deadline);
    if (!message.ok()) break;
    if (const auto* refused = std::get_if<Refused>(&*message)) {
      return absl::AbortedError(
          fmt::format("the destination gave up: {}", fmt::join(refused->reasons, "; ")));
    }
  }
  return status;
}

absl::StatusOr<PageChannels> SourceMigration::ReserveAndConnect() {
  Reserve reserve{
      .guest = context_.guest.description(),
      .channels = context_.options.workers > 0 ? context_.options.workers : DefaultWorkers()};
  for (const ChannelConnector* connector : context_.connectors) {
    for (const std::string& transport : connector->takes()) {
      auto& asked = reserve.transports;
      if (std::find(asked.begin(), asked.end(), transport) == asked.end()) {
        asked.push_back(transport);
      }
    }
  }
  BeginPlacement(reserve);
  RETURN_IF_ERROR(dialogue_.Send(reserve));
  ASSIGN_OR_RETURN(Reserved reserved, dialogue_.Expect<Reserved>());
  FinishPlacement(reserved.offers);
  transports_.SetOffers(std::move(reserved.offers));
  ASSIGN_OR_RETURN(PageChannels channels, transports_.Connect());
  report_.workers = static_cast<uint32_t>(channels.size());
  return channels;
}

void SourceMigration::BeginPlacement(Reserve& reserve) {
  if (context_.host == nullptr) return;
  placement_.emplace(context_.guest, *context_.host, context_.options);
  reserve.channels = placement_->workers();
  // Where all memory is alike, there is nothing to tell.
  if (placement_->survey()) reserve.channel_regions = placement_->ChannelRegions();
}

// The devices are those of the transport that is tried first. Should it fail, the workers stay
// where they are: it is the memory that counts.
void SourceMigration::FinishPlacement(const std::vector<ChannelOffer>& offers) {
  if (!placement_ || !placement_->plan().places_anything) return;
  for (ChannelConnector* connector : context_.connectors) {
    const std::vector<std::string> takes = connector->takes();
    for (ChannelOffer offer : offers) {
      if (std::find(takes.begin(), takes.end(), offer.transport) == takes.end()) continue;
      if (offer.address.empty()) offer.address = context_.control.peer_address();
      placement_->Plan(connector->NicsTo(offer));
      for (ChannelConnector* each : context_.connectors) each->PlaceChannels(placement_->places());
      for (const std::string& note : placement_->plan().notes) context_.observer.OnNote(note);
      return;
    }
  }
}

void SourceMigration::ReportPlacement(const Precopy& precopy) {
  if (!placement_ || !placement_->plan().places_anything) return;
  if (const absl::Status bound = precopy.binding(); !bound.ok()) {
    context_.observer.OnNote(Message(bound));
  }
  const std::vector<PageCount> pages = precopy.PagesByWorker();
  for (size_t i = 0; i < pages.size(); ++i) {
    const WorkerPlace& worker = placement_->plan().workers[i];
    report_.placement.push_back({.cpus = FormatCpuSet(worker.cpus),
                                 .node = worker.node,
                                 .memory_node = worker.home,
                                 .nic = worker.nic,
                                 .pages = pages[i],
                                 .why = worker.why});
  }
}

// Small rounds go on until the guest stands still, so that the last one stays small.
absl::Status SourceMigration::StopGuest(Precopy& precopy) {
  RETURN_IF_ERROR(WriteJournal(Phase::kPausing));
  RETURN_IF_ERROR(context_.guest.BeginPause([this](std::span<const std::byte> bytes) {
    for (size_t at = 0; at < bytes.size(); at += kMaxDeviceStateChunk) {
      const auto part = bytes.subspan(at, std::min(kMaxDeviceStateChunk, bytes.size() - at));
      device_state_bytes_ += part.size();
      RETURN_IF_ERROR(context_.control.Send(DeviceState{{part.begin(), part.end()}}));
    }
    return absl::OkStatus();
  }));
  // From here on it may stand still at any moment.
  precopy.SetRate(ByteCount(0));
  const bool can_collect = !context_.guest.needs_quiesced_collection();
  for (const Deadline deadline = In(kPauseTime); Clock::now() < deadline;) {
    RETURN_IF_ERROR(context_.cancel.status());
    ASSIGN_OR_RETURN(const bool paused, context_.guest.WaitPaused(In(kPauseStep)));
    if (paused) {
      stopped_ = context_.guest.paused_at();
      // Its devices are saved by the same process. If this fails, it only takes longer, and is
      // tried again when the guest is resumed here, or its copy ended.
      if (const absl::Status off = Throttle(1); !off.ok()) context_.observer.OnNote(Message(off));
      report_.downtime_parts.pause = MillisecondsBetween(stopped_, Clock::now());
      return absl::OkStatus();
    }
    if (!can_collect) continue;
    ASSIGN_OR_RETURN(const RoundReport round, precopy.Round({}));
    NoteRound(round);
  }
  return absl::DeadlineExceededError(
      fmt::format("the guest did not stop within {} s: its devices write their own memory "
                  "faster than QEMU sends it, or (Xen) it does not take the request to suspend",
                  kPauseTime.count()));
}

absl::Status SourceMigration::StopAndCopy(Precopy& precopy) {
  RETURN_IF_ERROR(Enter(Stage::kStopAndCopy));
  RETURN_IF_ERROR(StopGuest(precopy));
  const Deadline paused = Clock::now();
  RETURN_IF_ERROR(context_.control.Send(Paused{}));

  // The devices are saved while the last pages travel; the destination holds them back until all
  // pages are there, because loading some devices reads guest memory.
  auto saved = std::async(std::launch::async, [this] { return context_.guest.SaveDeviceState(); });
  auto last = precopy.FinalRound();
  const Deadline pages_sent = Clock::now();
  const absl::Status save_status = saved.get();
  RETURN_IF_ERROR(last.status());
  RETURN_IF_ERROR(save_status);
  // Saving may have written guest memory.
  ASSIGN_OR_RETURN(const RoundReport rest, precopy.FinalRound());
  last->pages += rest.pages;
  last->zero_pages += rest.zero_pages;
  last->bytes += rest.bytes;
  last->ms += rest.ms;
  NoteRound(*last);
  report_.downtime_parts.last_pages = MillisecondsBetween(paused, pages_sent);
  report_.downtime_parts.device_state = MillisecondsBetween(pages_sent, Clock::now());
  if (context_.options.verify) {
    const Deadline before = Clock::now();
    ASSIGN_OR_RETURN(digests_, precopy.Digests());
    report_.downtime_parts.verify = MillisecondsBetween(before, Clock::now());
  }
  return absl::OkStatus();
}

absl::Status SourceMigration::Commitment() {
  RETURN_IF_ERROR(Enter(Stage::kCommitment));
  const Deadline asked = Clock::now();
  report_.device_state_bytes = ByteCount(device_state_bytes_.load());
  RETURN_IF_ERROR(context_.control.Send(ImageComplete{
      .device_state_bytes = device_state_bytes_.load(), .digests = std::move(digests_)}));
  ASSIGN_OR_RETURN(const Holding holding,
                   dialogue_.Expect<Holding>(
                       context_.options.verify ? kVerifyTime : context_.options.answer_time));
  holding_ = Clock::now();
  report_.verified = holding.verified;
  const double waited = MillisecondsBetween(asked, holding_);
  // The rest of the wait, when there were digests, was the other side's hashing.
  const double loading =
      context_.options.verify ? std::min(waited, holding.device_state_ms) : waited;
  report_.downtime_parts.device_state += loading;
  report_.downtime_parts.verify += waited - loading;
  RETURN_IF_ERROR(context_.cancel.status());
  // From here the source may not resume by itself, and must remember that before it says so.
  RETURN_IF_ERROR(WriteJournal(Phase::kHandingOver));
  return Enter(Stage::kActivation);
}

}  // namespace ramferry
