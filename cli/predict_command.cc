// `ramferry predict`: what a migration would cost, without making it.
#include <fstream>
#include <sstream>

#include "base/status.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/measure.h"
#include "cli/say.h"
#include "cli/wws_view.h"
#include "engine/prediction/prediction.h"
#include "engine/prediction/synthetic_trace.h"

namespace ramferry {
namespace {

// A trace of 4096 zones and as many looks as there may be is far smaller.
constexpr std::streamoff kLargestTrace = 256 << 20;

absl::StatusOr<DirtyTrace> ReadTrace(const std::string& path) {
  std::ifstream file(path, std::ios::ate);
  if (!file) return ErrnoStatus(errno, "cannot read the trace " + path);
  if (file.tellg() > kLargestTrace) {
    return absl::InvalidArgumentError("the trace " + path + " is larger than any trace");
  }
  file.seekg(0);
  std::stringstream text;
  text << file.rdbuf();
  auto trace = ParseDirtyTrace(text.str());
  if (!trace.ok()) return Annotate(trace.status(), "trace " + path);
  return trace;
}

absl::StatusOr<DirtyTrace> FindTrace(const PredictArguments& arguments, const Settings& settings) {
  const int given = static_cast<int>(!arguments.guest.empty()) +
                    static_cast<int>(!arguments.trace.empty()) +
                    static_cast<int>(!arguments.synthetic.empty());
  if (given != 1) {
    return absl::InvalidArgumentError(
        "name what is to be predicted: a GUEST, --trace FILE or --synthetic, one of them");
  }
  if (!arguments.trace.empty()) return ReadTrace(arguments.trace);
  if (!arguments.synthetic.empty()) {
    const auto workload = ParseSyntheticWorkload(arguments.synthetic);
    if (!workload.ok()) return Annotate(workload.status(), "--synthetic");
    return TraceOf(*workload);
  }
  ASSIGN_OR_RETURN(WorkingSet set, MeasureGuest(arguments.guest, arguments.seconds, settings));
  return std::move(set.trace);
}

absl::Status ShowPrediction(const PredictArguments& arguments, const Settings& settings) {
  ASSIGN_OR_RETURN(const DirtyTrace trace, FindTrace(arguments, settings));
  PredictionInput input{.options = settings.migration_options(),
                        .link = {.bytes_per_second = arguments.link_gigabits * 1e9 / 8}};
  if (input.options.workers == 0) input.options.workers = DefaultWorkers();
  const Prediction prediction = Predict(trace, input);
  if (arguments.json != "-" && arguments.svg != "-") {
    Say("{}", FormatPrediction(trace, input, prediction));
  }
  if (!arguments.svg.empty()) RETURN_IF_ERROR(WriteOutput(arguments.svg, WorkingSetSvg(trace)));
  if (arguments.json.empty()) return absl::OkStatus();
  return WriteOutput(arguments.json, PredictionJson(trace, input, prediction));
}

}  // namespace

int PredictCommand(const PredictArguments& arguments, const Settings& settings) {
  const absl::Status status = ShowPrediction(arguments, settings);
  return status.ok() ? kExitOk : FailCommand(status);
}

}  // namespace ramferry
