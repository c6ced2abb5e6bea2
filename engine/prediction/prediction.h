// What a migration would cost: the engine's own decisions, made about a virtual migration.
//
//   Prediction prediction = Predict(trace, {.options = options, .link = link});
//   prediction.total_ms, prediction.downtime_ms, prediction.converges
//
// `ramferry predict` shows it before a migration, `ramferry migrate` compares it with what came of
// it (MigrationReport::predicted_total_ms). Pure: no clock, no input or output.
#pragma once

#include <string>
#include <vector>

#include "engine/downtime_model.h"
#include "engine/options.h"
#include "engine/prediction/dirty_trace.h"
#include "engine/prediction/virtual_migration.h"
#include "engine/report.h"

namespace ramferry {

// What a migration takes beside its pages, in milliseconds. Measured with QEMU 7.2 (bench/predict).
struct FixedCosts {
  double setup = 0;         // until the first page: connecting, starting the destination's QEMU
  double finish = 0;        // after the guest runs there: the source gives its memory back
  double pause = 5;         // from asking the guest to stop until it has stopped
  double switch_over = 20;  // of the downtime, without pages: DowntimeModel's
  double collect_per_gib = 0.5;  // looking which pages are dirty, for each GiB of memory and worker
};

struct PredictionInput {
  // All that decides about rounds, and `workers`. That hot pages are held is not followed: nearly
  // all of them are skipped, too.
  MigrationOptions options;
  VirtualLink link;
  FixedCosts costs;
};

struct Prediction {
  bool converges = false;           // the downtime target is met within the rounds allowed
  bool migrates = false;            // it converges, or is stopped anyway
  std::vector<RoundReport> rounds;  // the last one is stop-and-copy, if there is one
  double total_ms = 0;              // until it is done, or given up
  double downtime_ms = 0;           // of the stop; where it is given up: what that would have taken
  double bytes = 0;                 // on the wire
  double cpu_share = 1;             // the least that the guest was left of its CPUs' time
};

[[nodiscard]] Prediction Predict(const DirtyTrace& trace, const PredictionInput& input);

// Of a migration under way whose last round was `last`, from there on; without FixedCosts::setup.
[[nodiscard]] Prediction PredictRest(const DirtyTrace& trace, const PredictionInput& input,
                                     const DowntimeModel& model, const RoundReport& last);

// The downtime if the guest were stopped after so many rounds at full speed: 0 to `most_rounds`.
[[nodiscard]] std::vector<double> DowntimeByRounds(const DirtyTrace& trace,
                                                   const PredictionInput& input,
                                                   uint32_t most_rounds);

}  // namespace ramferry
