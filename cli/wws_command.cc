// `ramferry wws GUEST`: how a running guest writes its memory.
#include "base/status.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/measure.h"
#include "cli/say.h"
#include "cli/wws_view.h"

namespace ramferry {
namespace {

absl::Status ShowWorkingSet(const WwsArguments& arguments, const Settings& settings) {
  ASSIGN_OR_RETURN(const WorkingSet set,
                   MeasureGuest(arguments.guest, arguments.seconds, settings));
  if (arguments.json != "-" && arguments.svg != "-" && arguments.trace != "-") {
    Say("{}", FormatWorkingSet(set));
  }
  if (!arguments.json.empty()) RETURN_IF_ERROR(WriteOutput(arguments.json, WorkingSetJson(set)));
  if (!arguments.svg.empty()) RETURN_IF_ERROR(WriteOutput(arguments.svg, WorkingSetSvg(set.trace)));
  if (arguments.trace.empty()) return absl::OkStatus();
  return WriteOutput(arguments.trace, FormatDirtyTrace(set.trace));
}

}  // namespace

int WwsCommand(const WwsArguments& arguments, const Settings& settings) {
  const absl::Status status = ShowWorkingSet(arguments, settings);
  return status.ok() ? kExitOk : FailCommand(status);
}

}  // namespace ramferry
