#include "tests/unit/engine_site.h"

#include <filesystem>

#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

constexpr uint64_t kUsedPages = 2500;  // of 4096; the rest are holes
constexpr uint64_t kWorkingSet = 600;

// A guest writes without asking this process: what it does is hidden from ThreadSanitizer, which
// would take every page sent while it changes for a mistake. Plain stores, as memset is seen.
__attribute__((no_sanitize("thread"))) void FillPage(std::byte* page, uint64_t value) {
  auto* words = reinterpret_cast<volatile uint64_t*>(page);
  for (uint64_t i = 0; i < kPageBytes / sizeof(uint64_t); i += 32) words[i] = value;
}

// Dirties a small set again and again, a page far away now and then; some become zero.
void Work(std::span<const MappedRegion> regions, unsigned thread, uint64_t step) {
  const uint64_t random = (step * 2 + thread) * 0x9e3779b97f4a7c15;
  const MappedRegion& region = regions[step % 16 == 0 ? 1 : 0];
  const uint64_t most = step % 50 == 0 ? region.pages() : std::min(region.pages(), kWorkingSet);
  FillPage(region.address + (random >> 20) % most * kPageBytes, step % 5 == 0 ? 0 : random);
  if (step % 32 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
}

}  // namespace

MigrationSite::MigrationSite(bool needs_quiesced_collection)
    : guest_(*SyntheticGuest::Create({.name = "web1",
                                      .regions = {{"ram", MiB(16)}, {"rom", MiB(1)}},
                                      .needs_quiesced_collection = needs_quiesced_collection})),
      listener_(*TcpListener::Create("127.0.0.1", 0, {})),
      connector_(*TcpConnector::Create({})) {
  for (uint64_t page = 0; page < kUsedPages; ++page) {
    FillPage(guest_->memory()[0].address + page * kPageBytes, page * 77 + 1);
  }
  guest_->StartMutators(2, Work);
  Renew();
}

MigrationSite::~MigrationSite() = default;

void MigrationSite::Renew() {
  control_ = std::make_unique<FakeControlPair>();
  cancel_ = std::make_unique<Cancellation>();
  destination_cancel_ = std::make_unique<Cancellation>();
}

MigrationReport MigrationSite::Migrate() {
  arrived_ = nullptr;
  same_image_ = false;
  std::function<absl::StatusOr<HostTopology>()> topology;
  if (host) topology = [this] { return *host; };
  std::vector<ChannelListener*> listeners = {listener_.get()};
  if (better_listener != nullptr) listeners.insert(listeners.begin(), better_listener);
  std::vector<ChannelConnector*> connectors = {connector != nullptr ? connector : connector_.get()};
  if (better_connector != nullptr) connectors.insert(connectors.begin(), better_connector);
  destination_ =
      std::make_unique<DestinationMigration>(DestinationContext{.host = *this,
                                                                .listeners = listeners,
                                                                .journal = destination_journal_,
                                                                .observer = *this,
                                                                .cancel = *destination_cancel_,
                                                                .answer_time = options.answer_time,
                                                                .ownership_time = ownership_time,
                                                                .host_topology = topology,
                                                                .landing = landing});
  std::thread destination([this] {
    destination_status_ = destination_->Run(control_->destination());
    auto entry = destination_->unwritten();
    if (entry && destination_remembers) records_.Remember(*std::move(entry));
    if (destination_hangs_up) control_->destination().Close();
  });
  HookedSource source(*guest_, [this](std::string_view call) { return SourceCall(call); });
  source.stop_late = stop_late;
  source.node_of = node_of;
  SourceMigration migration({.guest = source,
                             .locator = "synthetic",
                             .control = control_->source(),
                             .destination = "destination.test:4400",
                             .connectors = connectors,
                             .journal = source_journal_,
                             .settle = [this](const std::string& id) -> absl::StatusOr<Verdict> {
                               if (!destination_answers)
                                 return absl::UnavailableError("no route to host");
                               return Settle(id);
                             },
                             .confirm = [this](const std::string& id) { Confirm(id); },
                             .observer = *this,
                             .cancel = *cancel_,
                             .options = options,
                             .host = host ? &*host : nullptr});
  MigrationReport report = migration.Run();
  // As when `ramferry migrate` ends.
  control_->source().Close();
  destination.join();
  for (const auto direction : {FakeControlPair::kToDestination, FakeControlPair::kToSource}) {
    sent_[direction] = control_->Sent(direction);
  }
  Renew();
  return report;
}

absl::StatusOr<std::unique_ptr<DestinationGuest>> MigrationSite::Reserve(
    const GuestDescription& description, const ReservationNote& note) {
  RETURN_IF_ERROR(note("synthetic:", ""));
  RETURN_IF_ERROR(DestinationCall("Reserve"));
  ASSIGN_OR_RETURN(auto guest, SyntheticDestination::Create(description));
  auto hooked = std::make_unique<HookedDestination>(
      std::move(guest), [this](std::string_view call) { return DestinationCall(call); });
  arrived_ = hooked.get();
  return hooked;
}

absl::Status MigrationSite::DestinationCall(std::string_view call) {
  if (call == "Activate" && guest_->running()) both_could_run_ = true;
  return on_destination != nullptr ? on_destination(call) : absl::OkStatus();
}

absl::Status MigrationSite::SourceCall(std::string_view call) {
  const HookedDestination* there = arrived_.load();
  if (call == "RollBack" && there != nullptr && there->active()) both_could_run_ = true;
  if (call == "Commit" && there != nullptr) {
    // The last moment at which both copies are there.
    destination_memory_ = ByteCount(0);
    same_image_ = true;
    for (const MemoryFile& file : there->files()) destination_memory_ += *file.Populated();
    for (size_t i = 0; i < there->regions().size(); ++i) {
      same_image_ =
          same_image_ && std::memcmp(there->regions()[i].address, guest_->regions()[i].address,
                                     there->regions()[i].description.size.value()) == 0;
    }
  }
  return on_source != nullptr ? on_source(call) : absl::OkStatus();
}

// As Receiver::Settle and Confirm do it.
absl::StatusOr<Verdict> MigrationSite::Settle(const std::string& migration_id) {
  const auto entry = records_.Find(migration_id);
  if (!entry.ok() || entry->peer != "source.test") return Verdict::kUnknown;
  return VerdictOf(*entry);
}

void MigrationSite::Confirm(const std::string& migration_id) {
  const auto entry = records_.Find(migration_id);
  if (!entry.ok()) return;
  if (entry->phase != Phase::kActivated && entry->phase != Phase::kReleased) return;
  records_.Forget(migration_id).IgnoreError();
}

void MigrationSite::BreakJournal(Role role) const {
  const std::string& directory = journal(role).directory();
  std::filesystem::rename(directory, directory + ".away");
}

void MigrationSite::MendJournal(Role role) const {
  const std::string& directory = journal(role).directory();
  std::filesystem::rename(directory + ".away", directory);
}

void MigrationSite::FillDisk(Role role) const {
  const auto entries = journal(role).ReadAll();
  ASSERT_TRUE(entries.ok()) << entries.status();
  for (const JournalEntry& entry : entries->entries) {
    // Where Journal::Write makes its new file.
    std::filesystem::create_directory(fmt::format("{}/{}.{}.json.next", journal(role).directory(),
                                                  entry.migration_id, NameOf(role)));
  }
}

void MigrationSite::FreeDisk(Role role) const {
  for (const auto& file : std::filesystem::directory_iterator(journal(role).directory())) {
    if (file.is_directory()) std::filesystem::remove(file.path());
  }
}

void MigrationSite::ExpectMigrated(const MigrationReport& report) {
  EXPECT_EQ(report.outcome, Outcome::kMigrated) << report.error;
  EXPECT_EQ(report.error, "");
  ExpectOneOwner(report);
}

void MigrationSite::ExpectRolledBack(const MigrationReport& report) {
  EXPECT_EQ(report.outcome, Outcome::kRolledBack);
  EXPECT_NE(report.error, "");
  ExpectOneOwner(report);
}

void MigrationSite::ExpectOneOwner(const MigrationReport& report) {
  const HookedDestination* there = destination();
  const bool runs_there = there != nullptr && there->active();
  EXPECT_FALSE(both_could_run_) << "for a moment both ends could run the guest";
  EXPECT_FALSE(runs_there && guest_->running()) << "both ends run the guest";
  EXPECT_FALSE(guest_->tracked()) << "tracking was left on";
  switch (report.outcome) {
    case Outcome::kMigrated:
      EXPECT_TRUE(runs_there) << "the guest runs nowhere";
      EXPECT_TRUE(guest_->committed());
      EXPECT_TRUE(same_image_) << "the image differs";
      EXPECT_FALSE(there->discarded());
      return;
    case Outcome::kRolledBack:
      EXPECT_TRUE(guest_->running()) << "the guest runs nowhere";
      EXPECT_FALSE(guest_->committed());
      EXPECT_FALSE(runs_there);
      EXPECT_TRUE(there == nullptr || there->discarded()) << "memory is left at the destination";
      return;
    case Outcome::kInDoubt: {
      EXPECT_FALSE(guest_->running()) << "a guest in doubt must stand still";
      EXPECT_FALSE(guest_->committed()) << "a guest in doubt must be kept";
      const auto mine = source_journal_.Read(report.migration_id, Role::kSource);
      ASSERT_TRUE(mine.ok()) << "nobody will remember the doubt: " << mine.status();
      EXPECT_EQ(mine->phase, Phase::kHandingOver);
      // Both ends have ended: the destination must know the truth.
      const auto verdict = Settle(report.migration_id);
      ASSERT_TRUE(verdict.ok());
      EXPECT_EQ(*verdict, runs_there ? Verdict::kOwned : Verdict::kReleased);
      return;
    }
  }
}

}  // namespace ramferry
