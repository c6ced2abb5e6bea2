// The source's side of one migration, through all six stages.
//
//   SourceMigration migration({.guest = guest, .control = *control, .connectors = {&tcp},
//                              .journal = journal, .settle = ask, .cancel = cancel});
//   MigrationReport report = migration.Run();
//
// Run never leaves the guest without an owner: the report's outcome says where it is. The rule that
// decides it is in stage.h; what each side writes down, in journal.h.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/cancellation.h"
#include "engine/downtime_model.h"
#include "engine/journal.h"
#include "engine/observer.h"
#include "engine/options.h"
#include "engine/placement/host_topology.h"
#include "engine/policy/convergence_policy.h"
#include "engine/policy/rate_policy.h"
#include "engine/precopy.h"
#include "engine/prediction/round_forecast.h"
#include "engine/report.h"
#include "engine/source_dialogue.h"
#include "engine/source_placement.h"
#include "engine/stage.h"
#include "engine/transport_choice.h"
#include "hypervisor-glue/guest.h"
#include "transport/control_channel.h"
#include "transport/page_channel.h"

namespace ramferry {

struct SourceContext {
  SourceGuest& guest;
  std::string locator;  // of the guest on this host, for the journal
  ControlChannel& control;
  std::string destination;  // as the user named it
  std::string server_name;  // what its certificate must say; empty: the host in `destination`
  // In order of preference; each serves the offers of one transport (ChannelConnector::transport).
  std::vector<ChannelConnector*> connectors;
  const Journal& journal;
  // Asks the destination what became of a migration, over a connection of its own.
  std::function<absl::StatusOr<Verdict>(const std::string& migration_id)> settle;
  // Tells it that its record is no longer needed.
  std::function<void(const std::string& migration_id)> confirm;
  MigrationObserver& observer;
  Cancellation& cancel;
  MigrationOptions options;
  // What the workers are placed by; null: they are not.
  const HostTopology* host = nullptr;
};

class SourceMigration {
 public:
  explicit SourceMigration(SourceContext context);

  // Once. Blocks for the whole migration.
  [[nodiscard]] MigrationReport Run();

  [[nodiscard]] const std::string& migration_id() const { return report_.migration_id; }
  [[nodiscard]] const StageMachine& stages() const { return stages_; }

 private:
  [[nodiscard]] absl::Status Enter(Stage stage);
  [[nodiscard]] absl::Status WriteJournal(Phase phase);
  [[nodiscard]] absl::Status DestinationsReason(const absl::Status& status);
  [[nodiscard]] absl::StatusOr<PageChannels> ReserveAndConnect();  // stage 1
  [[nodiscard]] absl::Status PreCopy(Precopy& precopy);            // stage 2
  [[nodiscard]] absl::Status StopAndCopy(Precopy& precopy);        // stage 3
  [[nodiscard]] absl::Status StopGuest(Precopy& precopy);
  [[nodiscard]] absl::Status Commitment();  // stage 4
  [[nodiscard]] absl::Status RunStages();   // 0 to 4
  void Activation();                        // stage 5
  void Settle(const absl::Status& why);
  void FinishGone();
  void FinishHere(const absl::Status& why);

  // source_precopy.cc
  // Fills in what the round left to do and what stopping the guest now would take.
  [[nodiscard]] absl::Status Assess(Precopy& precopy, RoundReport& round);
  [[nodiscard]] RoundKind NextKind(const RoundReport& round, ByteCount rate, bool hold) const;
  [[nodiscard]] absl::Status NotConverging(const ConvergenceDecision& decision,
                                           const RoundReport& round);
  [[nodiscard]] absl::Status Throttle(double cpu_share);
  [[nodiscard]] absl::StatusOr<bool> GoodMoment(Precopy& precopy, RoundReport& last);
  void NoteRound(RoundReport round);
  // What is still to come, as far as the rounds tell.
  void Forecast(RoundReport& round);
  // How many workers, and which regions they begin with.
  void BeginPlacement(Reserve& reserve);
  // By the network devices that lead to the destination.
  void FinishPlacement(const std::vector<ChannelOffer>& offers);
  void ReportPlacement(const Precopy& precopy);

  SourceContext context_;
  SourceDialogue dialogue_;
  StageMachine stages_;
  TransportChoice transports_;
  std::optional<SourcePlacement> placement_;
  MigrationReport report_;
  JournalEntry entry_;
  DowntimeModel model_;
  RoundForecast forecast_;
  Deadline started_;
  bool converges_ = true;
  double cpu_share_ = 1;  // that the guest is left
  std::atomic<uint64_t> device_state_bytes_{0};
  std::vector<SliceDigest> digests_;
  Deadline stopped_;  // the guest's
  Deadline holding_;  // the destination said so
  Deadline handed_over_;
  bool journaled_ = false;
};

}  // namespace ramferry
