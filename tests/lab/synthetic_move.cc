// Moves a synthetic guest between two hosts with the real engine, control channel and transports,
// as `ramferry migrate` and `receive` do with a QEMU guest, and proves every byte of it.
//
//   destination:  synthetic_move receive CERTIFICATES HOST STATE PORT FLAG...
//   source:       synthetic_move send    CERTIFICATES HOST STATE DESTINATION:PORT FLAG...
//
// CERTIFICATES is what `ramferry certs` has made, HOST this host's name in it, STATE a directory
// for the journal. Flags: --mib N (64, of the guest; send), --transport auto|rdma|tcp, --pin-budget
// MIB,
// --workers N, --unregistered (send: as if no device could register the memory, as with Xen).
//
// The guest writes one page after the other, which one and what is a function of the step alone,
// and its device state is the number of steps. So the destination computes all memory again, from
// the number that came, and compares every byte: nothing of what the engine says of itself is
// believed. The last quarter of the memory is never touched: it must stay a hole on both hosts.
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "base/status.h"
#include "cli/peer.h"
#include "cli/report_text.h"
#include "cli/settings.h"
#include "cli/transports.h"
#include "engine/destination_migration.h"
#include "engine/records.h"
#include "engine/source_migration.h"
#include "fmt/format.h"
#include "hypervisor-glue/synthetic/synthetic_guest.h"
#include "transport/control/client.h"
#include "transport/control/server.h"

namespace ramferry {
namespace {

struct Arguments {
  Settings settings;
  std::string place;  // PORT, or DESTINATION:PORT
  uint64_t mib = 64;
  bool unregistered = false;
};

uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

uint64_t UsedPages(uint64_t pages) {
  return pages * 3 / 4;
}

// What a page holds after the guest's `writing`; 0: from the beginning. Each eighth writing clears.
void Fill(std::byte* page, uint64_t number, uint64_t writing) {
  if (writing != 0 && writing % 8 == 0) {
    std::memset(page, 0, kPageBytes);
    return;
  }
  for (uint64_t at = 0; at < kPageBytes; at += 8) {
    const uint64_t word = Mix(number * 1000003 + writing * 4096 + at + 1);
    std::memcpy(page + at, &word, 8);
  }
}

uint64_t PageOfStep(uint64_t step, uint64_t pages) {
  return Mix(step) % UsedPages(pages);
}

// OK when the memory is what so many steps make of it.
absl::Status Compare(const MappedRegion& region, const MemoryFile& file, uint64_t steps) {
  const uint64_t pages = region.pages();
  std::map<uint64_t, uint64_t> last;  // page -> writing
  for (uint64_t step = 0; step < steps; ++step) last[PageOfStep(step, pages)] = step + 1;
  std::vector<std::byte> expected(kPageBytes);
  for (uint64_t page = 0; page < UsedPages(pages); ++page) {
    const auto found = last.find(page);
    Fill(expected.data(), page, found == last.end() ? 0 : found->second);
    if (std::memcmp(expected.data(), region.address + page * kPageBytes, kPageBytes) != 0) {
      return absl::DataLossError(
          fmt::format("page {} is not what {} steps make of it: WRONG", page, steps));
    }
  }
  ASSIGN_OR_RETURN(const ByteCount populated, file.Populated());
  fmt::print("every byte is right: {} pages, {} rewritten by {} steps; {} MiB of {} populated\n",
             UsedPages(pages), last.size(), steps, populated.value() >> 20,
             region.description.size.value() >> 20);
  if (populated > BytesIn(PageCount(UsedPages(pages))) + MiB(2)) {
    return absl::InternalError("memory that the guest never touched was populated");
  }
  return absl::OkStatus();
}

class Notes : public MigrationObserver, public DestinationObserver {
 public:
  void OnNote(const std::string& note) override { fmt::print("{}\n", note); }
  void OnRound(const RoundReport& round) override { fmt::print("{}\n", FormatRound(round)); }
  using DestinationObserver::OnRound;
  void OnEnd(const std::string& guest, const absl::Status& status) override {
    fmt::print("{}: {}\n", guest, status.ok() ? "runs here" : Message(status));
  }
};

// Takes one guest.
class Destination : private ControlService, private DestinationHost {
 public:
  absl::Status Run(const Arguments& arguments) {
    const Settings& settings = arguments.settings;
    ASSIGN_OR_RETURN(Journal journal, Journal::Open(settings.state_dir));
    records_ = std::make_unique<Records>(journal);
    journal_ = &journal;
    ASSIGN_OR_RETURN(listeners_, MakeListeners(settings));
    ASSIGN_OR_RETURN(Identity identity,
                     LoadIdentity(settings.ca, settings.certificate, settings.key));
    ASSIGN_OR_RETURN(
        const auto server,
        ControlServer::Start({.port = static_cast<uint16_t>(std::stoi(arguments.place)),
                              .identity = std::move(identity)},
                             *this));
    std::unique_lock lock(mutex_);
    confirmed_.wait(lock, [this] { return done_; });
    lock.unlock();
    RETURN_IF_ERROR(server->Stop(In(std::chrono::seconds(60))));
    return result_;
  }

 private:
  absl::StatusOr<std::unique_ptr<DestinationGuest>> Reserve(const GuestDescription& description,
                                                            const ReservationNote& note) override {
    RETURN_IF_ERROR(note("synthetic:", ""));
    ASSIGN_OR_RETURN(auto guest, SyntheticDestination::Create(description));
    guest_ = guest.get();
    return guest;
  }
  void Serve(ControlChannel& channel) override {
    std::vector<ChannelListener*> listeners;
    for (const auto& listener : listeners_) listeners.push_back(listener.get());
    DestinationMigration migration({.host = *this,
                                    .listeners = std::move(listeners),
                                    .journal = *journal_,
                                    .observer = notes_,
                                    .cancel = cancel_});
    absl::Status status = migration.Run(channel);
    if (status.ok()) {
      const uint64_t steps = std::stoull(guest_->device_state().substr(sizeof "steps=" - 1));
      status = Compare(guest_->regions()[0], guest_->files()[0], steps);
    }
    const std::lock_guard lock(mutex_);
    result_ = status;
    if (!status.ok()) Done();  // a source that failed confirms nothing
  }
  absl::StatusOr<Verdict> Settle(const std::string& id, const std::string& /*peer*/) override {
    const auto entry = records_->Find(id);
    return entry.ok() ? VerdictOf(*entry) : Verdict::kUnknown;
  }
  absl::Status Confirm(const std::string& id, const std::string& /*peer*/) override {
    absl::Status status = records_->Forget(id);
    const std::lock_guard lock(mutex_);
    Done();
    return status;
  }
  void Done() {
    done_ = true;
    confirmed_.notify_all();
  }

  Notes notes_;
  Cancellation cancel_;
  const Journal* journal_ = nullptr;
  std::unique_ptr<Records> records_;
  std::vector<std::unique_ptr<ChannelListener>> listeners_;
  SyntheticDestination* guest_ = nullptr;
  std::mutex mutex_;
  std::condition_variable confirmed_;
  // Guarded by mutex_:
  bool done_ = false;
  absl::Status result_;
};

absl::Status Send(const Arguments& arguments) {
  const Settings& settings = arguments.settings;
  ASSIGN_OR_RETURN(auto guest, SyntheticGuest::Create({.regions = {{"ram", MiB(arguments.mib)}},
                                                       .can_register = !arguments.unregistered}));
  const MappedRegion& region = guest->memory()[0];
  const uint64_t pages = region.pages();
  for (uint64_t page = 0; page < UsedPages(pages); ++page) {
    Fill(region.address + page * kPageBytes, page, 0);
  }
  guest->StartMutators(1, [pages](std::span<const MappedRegion> memory, unsigned, uint64_t step) {
    const uint64_t page = PageOfStep(step, pages);
    Fill(memory[0].address + page * kPageBytes, page, step + 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  });
  ASSIGN_OR_RETURN(const ControlClientOptions peer, ReachPeer(arguments.place, settings));
  ASSIGN_OR_RETURN(const Journal journal, Journal::Open(settings.state_dir));
  Cancellation cancel;
  ASSIGN_OR_RETURN(const auto connectors, MakeConnectors(peer.host, settings, cancel));
  ASSIGN_OR_RETURN(const auto control, ConnectControl(peer));
  std::vector<ChannelConnector*> in_order;
  for (const auto& connector : connectors) in_order.push_back(connector.get());
  Notes notes;
  SourceMigration migration(
      {.guest = *guest,
       .locator = "synthetic",
       .control = *control,
       .destination = arguments.place,
       .connectors = std::move(in_order),
       .journal = journal,
       .settle = [&peer](const std::string& id) { return AskVerdict(peer, id); },
       .confirm = [&peer](const std::string& id) { ConfirmVerdict(peer, id).IgnoreError(); },
       .observer = notes,
       .cancel = cancel,
       .options = settings.migration_options()});
  const MigrationReport report = migration.Run();
  fmt::print("{}", FormatReport(report));
  if (report.outcome != Outcome::kMigrated) return absl::AbortedError(report.error);
  return absl::OkStatus();
}

int Main(std::vector<std::string> words) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (words.size() < 6) {
    fmt::print(stderr,
               "usage: synthetic_move receive|send CERTIFICATES HOST STATE PLACE FLAG...\n");
    return 2;
  }
  Arguments arguments;
  Settings& settings = arguments.settings;
  settings.ca = words[2] + "/ca.pem";
  settings.certificate = fmt::format("{}/{}.pem", words[2], words[3]);
  settings.key = fmt::format("{}/{}-key.pem", words[2], words[3]);
  settings.state_dir = words[4];
  settings.downtime_ms = 2000;  // emulated hosts are slow
  settings.max_rounds = 6;
  settings.if_not_converging = "stop";
  arguments.place = words[5];
  for (size_t i = 6; i < words.size(); ++i) {
    const auto value = [&] { return i + 1 < words.size() ? words[++i] : ""; };
    if (words[i] == "--mib") arguments.mib = std::stoull(value());
    if (words[i] == "--transport") settings.transport = value();
    if (words[i] == "--pin-budget") settings.pin_budget_mib = std::stoll(value());
    if (words[i] == "--workers") settings.workers = std::stoll(value());
    if (words[i] == "--unregistered") arguments.unregistered = true;
  }
  const absl::Status status =
      words[1] == "send" ? Send(arguments) : std::make_unique<Destination>()->Run(arguments);
  if (!status.ok()) fmt::print("error: {}\n", Message(status));
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace ramferry

int main(int argc, char** argv) {
  return ramferry::Main(std::vector<std::string>(argv, argv + argc));
}
