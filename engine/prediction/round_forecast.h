// What the rounds of a migration so far say about the rest of it.
//
//   RoundForecast forecast(memory, options);
//   forecast.AddRound(report);          // after each round, with its dirty_pages
//   forecast.Rest(model).total_ms       // from now until the guest runs on the other side
//
// The guest has not been measured: each round shows one point of its curve, the pages that it wrote
// within the round's time. Until there are shorter rounds the curve is straight from nothing to
// that point, so that a guest with a small, hot working set is thought better of than it deserves.
// Pure; not thread-safe.
#pragma once

#include <map>

#include "base/units.h"
#include "engine/downtime_model.h"
#include "engine/prediction/prediction.h"

namespace ramferry {

class RoundForecast {
 public:
  RoundForecast(PageCount memory, const MigrationOptions& options)
      : memory_(memory), options_(options) {}

  void AddRound(const RoundReport& round);
  // Of what is still to come; nothing is known before the first round. `model` knows all rounds.
  [[nodiscard]] Prediction Rest(const DowntimeModel& model) const;

 private:
  PageCount memory_;
  MigrationOptions options_;
  std::map<double, double> written_;  // pages, by milliseconds
  RoundReport last_;
};

}  // namespace ramferry
