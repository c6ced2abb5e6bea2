// What `ramferry wws` and `ramferry predict` show. Plain data in, text out: tested without a guest.
#pragma once

#include <string>
#include <vector>

#include "engine/prediction/prediction.h"
#include "engine/working_set_meter.h"

namespace ramferry {

// Downtimes in ms if the guest were stopped after 0, 1, 2... rounds.
struct DowntimeCurve {
  double gigabits = 0;  // a second, of the link
  std::vector<double> downtime_ms;
};
inline constexpr uint32_t kCurveRounds = 8;
// For links of several bandwidths.
[[nodiscard]] std::vector<DowntimeCurve> DowntimeCurves(const DirtyTrace& trace);

[[nodiscard]] std::string FormatWorkingSet(const WorkingSet& set);
[[nodiscard]] std::string WorkingSetJson(const WorkingSet& set);
// The paper's two kinds of figure, one under the other: pages dirtied over time, and expected
// downtime against the number of rounds for several bandwidths.
[[nodiscard]] std::string WorkingSetSvg(const DirtyTrace& trace);

[[nodiscard]] std::string FormatPrediction(const DirtyTrace& trace, const PredictionInput& input,
                                           const Prediction& prediction);
[[nodiscard]] std::string PredictionJson(const DirtyTrace& trace, const PredictionInput& input,
                                         const Prediction& prediction);

}  // namespace ramferry
