// Stage 2 of the source: what the policies say, done.
#include <algorithm>
#include <chrono>
#include <thread>

#include "base/status.h"
#include "engine/policy/switchover_policy.h"
#include "engine/source_migration.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

using std::chrono::milliseconds;

// A round that takes less is over before pages can show that they are written often.
constexpr double kLongRoundMs = 50;
// While it waits for a guest to calm down, a round gives every page so long to be written again.
constexpr milliseconds kWaitPause{500};
constexpr milliseconds kWatchPause{static_cast<int64_t>(SwitchoverPolicy::kWatchPauseMs)};

RateLimits LimitsOf(const MigrationOptions& options) {
  return {
      .least = options.least_bandwidth, .step = options.bandwidth_step, .most = options.bandwidth};
}

// What the guest wrote in a second, over all rounds.
double AverageRate(const std::vector<RoundReport>& rounds) {
  double pages = 0;
  double ms = 0;
  for (const RoundReport& round : rounds) {
    pages += round.dirty_rate * round.ms;
    ms += round.ms;
  }
  return ms > 0 ? pages / ms : 0;
}

ByteCount BytesOf(const std::vector<RoundReport>& rounds) {
  ByteCount bytes;
  for (const RoundReport& round : rounds) bytes += round.bytes;
  return bytes;
}

}  // namespace

void SourceMigration::NoteRound(RoundReport round) {
  round.cpu_share = cpu_share_;
  report_.rounds.push_back(round);
  context_.observer.OnRound(round);
}

void SourceMigration::Forecast(RoundReport& round) {
  forecast_.AddRound(round);
  // Whoever watches is served by the long ones; the guest, by not thinking between the short ones.
  if (round.number != 1 && round.ms < kLongRoundMs) return;
  const Prediction rest = forecast_.Rest(model_);
  if (!rest.migrates) return;
  round.predicted_rest_ms = rest.total_ms;
  if (round.number == 1) {
    report_.predicted_total_ms = MillisecondsBetween(started_, Clock::now()) + rest.total_ms;
  }
}

absl::Status SourceMigration::Assess(Precopy& precopy, RoundReport& round) {
  model_.AddRound(round, context_.options.bandwidth);
  ASSIGN_OR_RETURN(const DirtyCount dirty, precopy.CountDirty());
  round.dirty_pages = dirty.pages;
  round.held_pages = dirty.held;
  // What is held was counted in the round in which it became hot.
  round.dirty_rate =
      round.ms > 0 ? static_cast<double>((dirty.pages - dirty.held).value()) * 1000 / round.ms : 0;
  round.predicted_downtime_ms = model_.Predict(round.dirty_pages, precopy.collect_ms());
  report_.predicted_downtime_ms = round.predicted_downtime_ms;
  Forecast(round);
  NoteRound(round);
  // Only for the other side's display.
  return context_.control.Send(
      RoundNote{.round = round.number, .pages = round.pages, .dirty = round.dirty_pages});
}

RoundKind SourceMigration::NextKind(const RoundReport& round, ByteCount rate, bool hold) const {
  const PageCount next = round.dirty_pages - round.held_pages;
  double bytes_per_ms = model_.bytes_per_ms();
  if (rate.value() > 0) {
    bytes_per_ms = std::min(bytes_per_ms, static_cast<double>(rate.value()) / 1000);
  }
  const bool is_long = context_.options.mechanisms.skip && bytes_per_ms > 0 &&
                       static_cast<double>(BytesIn(next).value()) / bytes_per_ms >= kLongRoundMs;
  return {.by = CollectBy::kDirty, .is_long = is_long, .hold = hold && is_long};
}

absl::Status SourceMigration::Throttle(double cpu_share) {
  if (cpu_share == cpu_share_) return absl::OkStatus();
  RETURN_IF_ERROR(context_.guest.Throttle(cpu_share));
  cpu_share_ = cpu_share;
  return absl::OkStatus();
}

// Tells what was found out, and does what the user chose. An error ends the migration.
absl::Status SourceMigration::NotConverging(const ConvergenceDecision& decision,
                                            const RoundReport& round) {
  const std::string found = fmt::format(
      "the guest does not converge: {}",
      DescribeDirtying(round, static_cast<double>(context_.options.downtime_target.count())));
  const auto note = [this](const std::string& text) { context_.observer.OnNote(text); };
  switch (decision.step) {
    case NextStep::kGiveUp:
      converges_ = false;
      return absl::FailedPreconditionError(fmt::format(
          "{}{}. It goes on running here. Allow a longer --downtime or more --bandwidth, or choose "
          "--if-not-converging {}",
          found,
          cpu_share_ < 1 ? fmt::format(", even with {:.0f} % of its CPU time", cpu_share_ * 100)
                         : "",
          context_.options.not_converging == NotConverging::kThrottle ? "wait or stop"
                                                                      : "throttle, wait or stop"));
    case NextStep::kStopAnyway:
      note(fmt::format("{}; stopping it all the same, for about {:.0f} ms", found,
                       round.predicted_downtime_ms));
      return absl::OkStatus();
    case NextStep::kThrottle: {
      const absl::Status throttled = Throttle(decision.cpu_share);
      if (!throttled.ok()) {
        converges_ = false;
        return absl::FailedPreconditionError(
            fmt::format("{}. It cannot be throttled ({}), and goes on running here", found,
                        Message(throttled)));
      }
      note(fmt::format("{}{}its virtual CPUs get {:.0f} % of their time until it stops",
                       decision.detected ? found : "that was not enough",
                       decision.detected ? "; " : ": ", decision.cpu_share * 100));
      return absl::OkStatus();
    }
    default:
      if (decision.detected) note(found + "; waiting until it writes less");
      return absl::OkStatus();
  }
}

// Whether the guest is to be stopped now: after small rounds that bring down what is left to send,
// and at a low point of its writing. False: it writes so much by now that the target is missed.
// `last`: the round that met the target; then the one that was the last.
absl::StatusOr<bool> SourceMigration::GoodMoment(Precopy& precopy, RoundReport& last) {
  const auto target = static_cast<double>(context_.options.downtime_target.count());
  SwitchoverPolicy policy(AverageRate(report_.rounds), BytesOf(report_.rounds));
  // The prediction is of a stop at this rate, too.
  precopy.SetRate(context_.options.bandwidth);
  Deadline looked = Clock::now();
  for (;;) {
    const Deadline now = Clock::now();
    const SwitchoverStep step =
        policy.Decide({.predicted_ms = last.predicted_downtime_ms,
                       .fixed_ms = model_.Predict(PageCount(0), precopy.collect_ms()),
                       .dirty_rate = last.dirty_rate,
                       .bytes = last.bytes,
                       .ms = MillisecondsBetween(looked, now)});
    looked = now;
    if (step == SwitchoverStep::kStop) return last.predicted_downtime_ms <= target;
    RETURN_IF_ERROR(context_.cancel.status());
    if (step == SwitchoverStep::kWatch) std::this_thread::sleep_for(kWatchPause);
    ASSIGN_OR_RETURN(last, precopy.Round({}));
    RETURN_IF_ERROR(Assess(precopy, last));
  }
}

absl::Status SourceMigration::PreCopy(Precopy& precopy) {
  const MigrationOptions& options = context_.options;
  RatePolicy rates(LimitsOf(options));
  ConvergencePolicy convergence({.target_ms = static_cast<double>(options.downtime_target.count()),
                                 .max_rounds = options.max_rounds,
                                 .choice = options.not_converging});
  RoundKind kind{.by = CollectBy::kPopulated, .is_long = options.mechanisms.skip};
  bool hold = options.mechanisms.hold;
  bool instant = options.mechanisms.instant;
  for (uint32_t number = 1;; ++number) {
    RETURN_IF_ERROR(context_.cancel.status());
    const ByteCount rate = rates.rate();
    precopy.SetRate(rate);
    ASSIGN_OR_RETURN(RoundReport round, precopy.Round(kind));
    RETURN_IF_ERROR(Assess(precopy, round));
    rates.AddRound(round);
    // The small rounds before a stop that did not come about are none of those allowed.
    RoundReport judged = round;
    judged.number = number;
    const ConvergenceDecision decision =
        convergence.Decide(judged, rates.at_most() && rates.rate() == rate);
    if (decision.step == NextStep::kStop) {
      precopy.Thaw();
      if (!instant) return absl::OkStatus();
      ASSIGN_OR_RETURN(const bool good, GoodMoment(precopy, round));
      if (good) return absl::OkStatus();
      instant = false;  // the next moment will do
    } else if (decision.detected || decision.step != NextStep::kRound) {
      RETURN_IF_ERROR(NotConverging(decision, round));
      if (decision.step == NextStep::kStopAnyway) {
        precopy.Thaw();
        return absl::OkStatus();
      }
    }
    // Little is left but what was held: is it still too hot at the pace of short rounds?
    const PageCount others = round.dirty_pages - round.held_pages;
    if (hold && round.held_pages.value() > 0 && others.value() <= round.held_pages.value() / 2) {
      precopy.Thaw();
      hold = false;
    }
    kind = NextKind(round, rates.rate(), hold);
    if (!convergence.converges() && options.not_converging == NotConverging::kWait) {
      kind = {.by = CollectBy::kDirty, .is_long = true, .pause = kWaitPause};
    }
  }
}

}  // namespace ramferry
