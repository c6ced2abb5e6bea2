#include "engine/prediction/round_forecast.h"

#include <iterator>

namespace ramferry {

void RoundForecast::AddRound(const RoundReport& round) {
  last_ = round;
  if (round.ms <= 0) return;
  written_[round.ms] = static_cast<double>(round.dirty_pages.value());
  // The newest are worth more than the oldest, and a few are enough.
  if (written_.size() > kMostIntervals) written_.erase(std::prev(written_.end()));
}

Prediction RoundForecast::Rest(const DowntimeModel& model) const {
  if (written_.empty() || model.bytes_per_ms() <= 0) return {};
  DirtyTrace trace{.zones = {{.memory = memory_, .contents = memory_}}};
  for (const auto& [ms, pages] : written_) {
    trace.intervals_ms.push_back(ms);
    trace.zones[0].written.push_back(pages);
  }
  // What the rounds measured is what the limit, the link and the processors allow together.
  PredictionInput input{.options = options_,
                        .link = {.bytes_per_second = model.bytes_per_ms() * 1000}};
  return PredictRest(trace, input, model, last_);
}

}  // namespace ramferry
