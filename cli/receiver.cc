#include "cli/receiver.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/status.h"
#include "cli/guests.h"
#include "cli/peer.h"
#include "cli/recovery.h"
#include "cli/transports.h"
#include "engine/placement/landing_plan.h"
#include "engine/placement/usable_cpus.h"

namespace ramferry {
namespace {

// For migrations under way to end in good order when receive is stopped.
constexpr std::chrono::seconds kPartingTime{5};

// For the end of a migration that the source already knows of to reach the journal.
constexpr std::chrono::seconds kSettlingTime{5};
constexpr std::chrono::milliseconds kSettlingStep{10};

PeerPolicy PolicyOf(const Settings& settings) {
  return {.allowed = settings.allow, .revocation_list = settings.revocation_list};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Receiver>> Receiver::Start(const Settings& settings,
                                                          DestinationObserver& observer) {
  ASSIGN_OR_RETURN(auto host, MakeHost(settings));
  if (!settings.cpus.empty() || !settings.numa_map.empty()) {
    ASSIGN_OR_RETURN(const HostTopology topology, ReadHostTopology());
    RETURN_IF_ERROR(CheckWantedCpus(topology, settings.landing_wishes().cpus));
    if (const auto wrong = WrongHostNodes(topology, settings.landing_wishes().map);
        !wrong.empty()) {
      return absl::InvalidArgumentError(wrong.front());
    }
  }
  ASSIGN_OR_RETURN(Journal journal, Journal::Open(settings.state_dir));
  std::unique_ptr<Receiver> receiver(
      new Receiver(settings, std::move(journal), std::move(host), observer));
  receiver->SettleLeftovers();
  RETURN_IF_ERROR(receiver->Listen(settings));
  return receiver;
}

absl::Status Receiver::Listen(const Settings& settings) {
  ASSIGN_OR_RETURN(Identity identity, LoadOwnIdentity(settings));
  ASSIGN_OR_RETURN(listeners_, MakeListeners(settings));
  ASSIGN_OR_RETURN(server_, ControlServer::Start(
                                {.address = settings.listen,
                                 .port = static_cast<uint16_t>(settings.port),
                                 .identity = std::move(identity),
                                 .policy = PolicyOf(settings),
                                 .max_migrations = static_cast<size_t>(settings.max_migrations)},
                                *this));
  return absl::OkStatus();
}

absl::Status Receiver::Reload(const Settings& settings) {
  ASSIGN_OR_RETURN(std::shared_ptr<DestinationHost> host, MakeHost(settings));
  server_->SetPolicy(PolicyOf(settings));
  const std::lock_guard lock(host_mutex_);
  host_ = std::move(host);
  return absl::OkStatus();
}

void Receiver::SettleLeftovers() {
  const auto left = journal_.ReadAll();
  if (!left.ok()) return observer_.OnNote(Message(left.status()));
  for (const DamagedEntry& damaged : left->damaged) observer_.OnNote(Describe(damaged));
  for (const JournalEntry& entry : left->entries) {
    if (entry.role == Role::kDestination) SettleLeftover(entry);
  }
}

void Receiver::SettleLeftover(const JournalEntry& entry) {
  if (Settled(entry) || WriterLives(entry)) return;
  const auto done = SettleEntry(entry, Resolution::kAsk, settings_, journal_);
  observer_.OnNote("an earlier migration was broken off: " +
                   (done.ok() ? *done : Message(done.status())));
}

Receiver::~Receiver() {
  Stop(In(std::chrono::seconds(30))).IgnoreError();
}

void Receiver::AwaitConfirmations(Deadline deadline) {
  const auto unconfirmed = [this] {
    if (!records_.WriteDown()) return true;
    const auto known = journal_.ReadAll();
    return known.ok() &&
           std::any_of(known->entries.begin(), known->entries.end(), [](const JournalEntry& entry) {
             return entry.phase == Phase::kActivated && WriterLives(entry);
           });
  };
  while (Clock::now() < deadline && unconfirmed()) std::this_thread::sleep_for(kSettlingStep);
}

absl::Status Receiver::Stop(Deadline deadline) {
  cancel_.Request("ramferry receive was stopped");
  // What is under way ends by itself and tells its source why; the server would cut it short.
  for (const Deadline patience = std::min(deadline, In(kPartingTime));
       serving_ > 0 && Clock::now() < patience;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return server_ != nullptr ? server_->Stop(deadline) : absl::OkStatus();
}

void Receiver::Serve(ControlChannel& channel) {
  ++serving_;
  records_.WriteDown();  // there may be room again
  std::vector<ChannelListener*> listeners;
  for (const auto& listener : listeners_) listeners.push_back(listener.get());
  const auto host = [this] {
    const std::lock_guard lock(host_mutex_);
    return host_;
  }();
  DestinationMigration migration({.host = *host,
                                  .listeners = std::move(listeners),
                                  .journal = journal_,
                                  .observer = observer_,
                                  .cancel = cancel_,
                                  .host_topology = ReadHostTopology,
                                  .landing = settings_.landing_wishes()});
  migration.Run(channel).IgnoreError();  // the observer was told
  if (auto entry = migration.unwritten()) records_.Remember(*std::move(entry));
  --serving_;
}

absl::StatusOr<Verdict> Receiver::Settle(const std::string& migration_id,
                                         const std::string& peer_name) {
  auto entry = records_.Find(migration_id);
  if (absl::IsNotFound(entry.status())) return Verdict::kUnknown;
  if (!entry.ok()) return entry.status();
  if (entry->peer != peer_name) return Verdict::kUnknown;
  SettleLeftover(*entry);  // at the start of this receiver it may not have been possible
  entry = records_.Find(migration_id);
  if (absl::IsNotFound(entry.status())) return Verdict::kUnknown;
  if (!entry.ok()) return entry.status();
  return VerdictOf(*entry);
}

absl::Status Receiver::Confirm(const std::string& migration_id, const std::string& peer_name) {
  auto entry = records_.Find(migration_id);
  if (absl::IsNotFound(entry.status())) return absl::OkStatus();
  if (!entry.ok()) return entry.status();
  if (entry->peer != peer_name) return absl::OkStatus();
  // The source may be quicker than our own last word in the journal.
  for (const Deadline deadline = In(kSettlingTime);
       !Settled(*entry) && WriterLives(*entry) && Clock::now() < deadline;) {
    std::this_thread::sleep_for(kSettlingStep);
    entry = records_.Find(migration_id);
    if (!entry.ok()) return entry.status();
  }
  if (!Settled(*entry)) {
    return absl::FailedPreconditionError("this migration is not settled here");
  }
  return records_.Forget(migration_id);
}

}  // namespace ramferry
