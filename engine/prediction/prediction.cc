#include "engine/prediction/prediction.h"

#include <algorithm>
#include <utility>

#include "engine/policy/convergence_policy.h"
#include "engine/policy/rate_policy.h"

namespace ramferry {
namespace {

// As SourceMigration::StopGuest.
constexpr double kPauseStepMs = 2;

// Of a guest that is waited for: it may never converge.
constexpr size_t kMostRounds = 1000;

// As CutIntoSlices: 64 MiB, or what gives each worker eight.
uint64_t SlicePages(PageCount memory, uint32_t workers) {
  constexpr uint64_t kLargest = MiB(64).value() / kPageBytes;
  return std::clamp(memory.value() / (8 * uint64_t{std::max(workers, 1U)}), kBlockPages, kLargest);
}

double CollectMs(const DirtyTrace& trace, const PredictionInput& input) {
  const double gib = static_cast<double>(BytesIn(trace.memory()).value()) / (1U << 30);
  return gib * input.costs.collect_per_gib / std::max(input.options.workers, 1U);
}

VirtualMigration Begin(const DirtyTrace& trace, const PredictionInput& input) {
  VirtualLink link = input.link;
  link.round_ms += CollectMs(trace, input);
  return {trace, link, SlicePages(trace.memory(), input.options.workers)};
}

// From asking the guest to stop to its last page, as SourceMigration::StopGuest does it: what is
// dirty goes in one more round, during which the guest stops.
void SwitchOver(VirtualMigration& migration, const PredictionInput& input, double collect_ms,
                Prediction& prediction) {
  const auto limit = static_cast<double>(input.options.bandwidth.value());
  const FixedCosts& costs = input.costs;
  const double stops = migration.now_ms() + costs.pause;
  migration.StopGuestAt(stops);
  // The engine waits a moment for the stop before it sends another round.
  migration.Wait(std::min(costs.pause, kPauseStepMs));
  if (costs.pause > kPauseStepMs) prediction.rounds.push_back(migration.Round(limit));
  migration.Wait(std::max(stops - migration.now_ms(), 0.0));
  const double late = migration.now_ms() - stops;
  const double pages = migration.dirty_pages();
  const double ms = migration.SendStopped();
  prediction.downtime_ms = late + costs.switch_over + 2 * collect_ms + ms;
  prediction.rounds.push_back({.number = static_cast<uint32_t>(prediction.rounds.size() + 1),
                               .stopped = true,
                               .pages = PageCount(static_cast<uint64_t>(pages)),
                               .ms = ms});
}

// The engine's loop, from the end of round `last` on; without: from the beginning.
Prediction Run(VirtualMigration migration, const PredictionInput& input, double collect_ms,
               DowntimeModel model, const RoundReport* last) {
  const MigrationOptions& options = input.options;
  RatePolicy rates({.most = options.bandwidth});
  ConvergencePolicy convergence({.target_ms = static_cast<double>(options.downtime_target.count()),
                                 .max_rounds = std::max(options.max_rounds, 1U),
                                 .choice = options.not_converging});
  Prediction prediction;
  NextStep step = NextStep::kRound;
  while (step == NextStep::kRound || step == NextStep::kThrottle) {
    RoundReport round;
    if (last != nullptr) {
      round = *std::exchange(last, nullptr);
    } else {
      round = migration.Round(static_cast<double>(rates.rate().value()));
      model.AddRound(round.bytes, round.ms);
      round.predicted_downtime_ms = model.Predict(round.dirty_pages, collect_ms);
      prediction.rounds.push_back(round);
    }
    prediction.downtime_ms = round.predicted_downtime_ms;
    const ConvergenceDecision decision = convergence.Decide(round, rates.at_most());
    step = decision.step;
    migration.SetCpuShare(decision.cpu_share);
    rates.AddRound(round);
    prediction.cpu_share = std::min(prediction.cpu_share, decision.cpu_share);
    if (prediction.rounds.size() >= kMostRounds) break;
  }
  prediction.converges = step == NextStep::kStop;
  prediction.migrates = prediction.converges || step == NextStep::kStopAnyway;
  double rest_ms = 0;
  if (prediction.migrates) {
    SwitchOver(migration, input, collect_ms, prediction);
    rest_ms = input.costs.switch_over + input.costs.finish;
  }
  prediction.total_ms = input.costs.setup + migration.now_ms() + rest_ms;
  prediction.bytes = migration.bytes_sent();
  return prediction;
}

}  // namespace

Prediction Predict(const DirtyTrace& trace, const PredictionInput& input) {
  return Run(Begin(trace, input), input, CollectMs(trace, input),
             DowntimeModel(input.costs.switch_over), nullptr);
}

Prediction PredictRest(const DirtyTrace& trace, const PredictionInput& input,
                       const DowntimeModel& model, const RoundReport& last) {
  VirtualMigration migration = Begin(trace, input);
  migration.BeginAfter(last.number, static_cast<double>(last.dirty_pages.value()));
  return Run(std::move(migration), input, CollectMs(trace, input), model, &last);
}

std::vector<double> DowntimeByRounds(const DirtyTrace& trace, const PredictionInput& input,
                                     uint32_t most_rounds) {
  VirtualMigration migration = Begin(trace, input);
  const double fixed = input.costs.switch_over + 2 * CollectMs(trace, input);
  std::vector<double> downtimes;
  for (uint32_t rounds = 0;; ++rounds) {
    VirtualMigration stopped = migration;
    downtimes.push_back(fixed + stopped.SendStopped());
    if (rounds == most_rounds) return downtimes;
    migration.Round();
  }
}

}  // namespace ramferry
