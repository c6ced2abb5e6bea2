// Any text is a dirty trace or an error; what is one is the same after another trip to a file, and
// can be predicted from: with numbers, and with an end. The same for the words of a made-up guest.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "engine/prediction/dirty_trace.h"
#include "engine/prediction/prediction.h"
#include "engine/prediction/synthetic_trace.h"

namespace {

void Check(const ramferry::DirtyTrace& trace) {
  const std::string text = ramferry::FormatDirtyTrace(trace);
  const auto again = ramferry::ParseDirtyTrace(text);
  if (!again.ok() || ramferry::FormatDirtyTrace(*again) != text) std::abort();
  ramferry::PredictionInput input;
  input.options.max_rounds = 4;
  input.options.not_converging = ramferry::NotConverging::kStopAnyway;
  const ramferry::Prediction prediction = ramferry::Predict(trace, input);
  if (!std::isfinite(prediction.total_ms) || !std::isfinite(prediction.downtime_ms)) std::abort();
  if (prediction.total_ms < 0 || !prediction.migrates) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto trace = ramferry::ParseDirtyTrace(text);
  if (trace.ok()) Check(*trace);
  if (!trace.ok() && trace.status().message().empty()) std::abort();
  const auto workload = ramferry::ParseSyntheticWorkload(text);
  if (workload.ok()) Check(ramferry::TraceOf(*workload));
  if (!workload.ok() && workload.status().message().empty()) std::abort();
  return 0;
}
