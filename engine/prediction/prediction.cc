#include "engine/prediction/prediction.h"

#include <algorithm>
#include <utility>

#include "engine/policy/convergence_policy.h"
#include "engine/policy/rate_policy.h"
#include "engine/policy/switchover_policy.h"

namespace ramferry {
namespace {

// As SourceMigration::StopGuest.
constexpr double kPauseStepMs = 2;

// Of a guest that is waited for: it may never converge.
constexpr size_t kMostRounds = 1000;

// As source_precopy.cc.
constexpr double kLongRoundMs = 50;
constexpr double kWaitPauseMs = 500;

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

// One prediction under way: SourceMigration's own steps (source_precopy.cc), on the virtual clock.
class VirtualSource {
 public:
  VirtualSource(VirtualMigration migration, const PredictionInput& input, double collect_ms,
                DowntimeModel model)
      : migration_(std::move(migration)), input_(input), collect_ms_(collect_ms), model_(model) {}

  // From the end of round `last` on; without: from the beginning.
  Prediction Run(const RoundReport* last) {
    before_ = last;
    const NextStep step = PreCopy(last);
    prediction_.converges = step == NextStep::kStop;
    prediction_.migrates = prediction_.converges || step == NextStep::kStopAnyway;
    double rest_ms = 0;
    if (prediction_.migrates) {
      StopAndCopy();
      rest_ms = input_.costs.switch_over + input_.costs.finish;
    }
    prediction_.total_ms = input_.costs.setup + migration_.now_ms() + rest_ms;
    prediction_.bytes = migration_.bytes_sent();
    return std::move(prediction_);
  }

 private:
  RoundReport Round(const VirtualRound& kind) {
    RoundReport round = migration_.Round(kind);
    model_.AddRound(round, input_.options.bandwidth);
    round.predicted_downtime_ms = model_.Predict(round.dirty_pages, collect_ms_);
    prediction_.rounds.push_back(round);
    return round;
  }

  NextStep PreCopy(const RoundReport* last) {
    const MigrationOptions& options = input_.options;
    RatePolicy rates({.least = options.least_bandwidth,
                      .step = options.bandwidth_step,
                      .most = options.bandwidth});
    ConvergencePolicy convergence(
        {.target_ms = static_cast<double>(options.downtime_target.count()),
         .max_rounds = std::max(options.max_rounds, 1U),
         .choice = options.not_converging});
    VirtualRound kind{.is_long = options.mechanisms.skip};
    bool instant = options.mechanisms.instant;
    for (uint32_t number = last != nullptr ? last->number : 1;
         prediction_.rounds.size() < kMostRounds; ++number) {
      const ByteCount rate = rates.rate();
      kind.limit = rate;
      RoundReport round = last != nullptr ? *std::exchange(last, nullptr) : Round(kind);
      prediction_.downtime_ms = round.predicted_downtime_ms;
      rates.AddRound(round);
      RoundReport judged = round;
      judged.number = number;
      const ConvergenceDecision decision =
          convergence.Decide(judged, rates.at_most() && rates.rate() == rate);
      migration_.SetCpuShare(decision.cpu_share);
      prediction_.cpu_share = std::min(prediction_.cpu_share, decision.cpu_share);
      if (decision.step == NextStep::kGiveUp || decision.step == NextStep::kStopAnyway) {
        return decision.step;
      }
      if (decision.step == NextStep::kStop) {
        if (!instant || GoodMoment(round)) return decision.step;
        instant = false;
      }
      kind.is_long = options.mechanisms.skip && IsLong(round, rates.rate());
      const bool waits = !convergence.converges() && options.not_converging == NotConverging::kWait;
      if (waits) kind.is_long = true;
      kind.pause_ms = waits ? kWaitPauseMs : 0;
    }
    return NextStep::kRound;  // it would go on like this
  }

  bool IsLong(const RoundReport& round, ByteCount limit) const {
    double rate = model_.bytes_per_ms();
    if (limit.value() > 0) rate = std::min(rate, static_cast<double>(limit.value()) / 1000);
    return rate > 0 &&
           static_cast<double>(BytesIn(round.dirty_pages).value()) / rate >= kLongRoundMs;
  }

  // `last`: the round that met the target; then the one that was the last.
  bool GoodMoment(RoundReport& last) {
    double pages = 0;
    double ms = 0;
    ByteCount bytes;
    const auto add = [&](const RoundReport& round) {
      pages += round.dirty_rate * round.ms / 1000;
      ms += round.ms;
      bytes += round.bytes;
    };
    if (before_ != nullptr) add(*before_);
    for (const RoundReport& round : prediction_.rounds) add(round);
    SwitchoverPolicy policy(ms > 0 ? pages * 1000 / ms : 0, bytes);
    double looked = migration_.now_ms();
    while (prediction_.rounds.size() < kMostRounds) {
      const SwitchoverStep step =
          policy.Decide({.predicted_ms = last.predicted_downtime_ms,
                         .fixed_ms = model_.Predict(PageCount(0), collect_ms_),
                         .dirty_rate = last.dirty_rate,
                         .bytes = last.bytes,
                         .ms = migration_.now_ms() - looked});
      looked = migration_.now_ms();
      if (step == SwitchoverStep::kStop) break;
      if (step == SwitchoverStep::kWatch) migration_.Wait(SwitchoverPolicy::kWatchPauseMs);
      last = Round({.limit = input_.options.bandwidth});
    }
    return last.predicted_downtime_ms <=
           static_cast<double>(input_.options.downtime_target.count());
  }

  // As SourceMigration::StopGuest and StopAndCopy: what is dirty goes in one more round, during
  // which the guest stops; then the rest.
  void StopAndCopy() {
    const FixedCosts& costs = input_.costs;
    const double stops = migration_.now_ms() + costs.pause;
    migration_.StopGuestAt(stops);
    // The engine waits a moment for the stop before it sends another round.
    migration_.Wait(std::min(costs.pause, kPauseStepMs));
    if (costs.pause > kPauseStepMs) {
      prediction_.rounds.push_back(migration_.Round());
    }
    migration_.Wait(std::max(stops - migration_.now_ms(), 0.0));
    const double late = migration_.now_ms() - stops;
    const double pages = migration_.dirty_pages();
    const double ms = migration_.SendStopped();
    prediction_.downtime_ms = late + costs.switch_over + 2 * collect_ms_ + ms;
    prediction_.rounds.push_back({.number = static_cast<uint32_t>(prediction_.rounds.size() + 1),
                                  .stopped = true,
                                  .pages = PageCount(static_cast<uint64_t>(pages)),
                                  .ms = ms});
  }

  VirtualMigration migration_;
  const PredictionInput& input_;
  const double collect_ms_;
  DowntimeModel model_;
  const RoundReport* before_ = nullptr;
  Prediction prediction_;
};

}  // namespace

Prediction Predict(const DirtyTrace& trace, const PredictionInput& input) {
  return VirtualSource(Begin(trace, input), input, CollectMs(trace, input),
                       DowntimeModel(input.costs.switch_over))
      .Run(nullptr);
}

Prediction PredictRest(const DirtyTrace& trace, const PredictionInput& input,
                       const DowntimeModel& model, const RoundReport& last) {
  VirtualMigration migration = Begin(trace, input);
  migration.BeginAfter(last.number, last.ms);
  return VirtualSource(std::move(migration), input, CollectMs(trace, input), model).Run(&last);
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
