// Measures a guest of this host from the command line: journal, Ctrl-C and all.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cli/settings.h"
#include "engine/working_set_meter.h"

namespace ramferry {

// How long a measurement may take: seconds.
inline constexpr int kLeastSeconds = 2;
inline constexpr int kMostSeconds = 3600;
inline constexpr int kUsualSeconds = 20;

// Whatever happens, the guest's writes are not tracked any more afterwards. Cancelled: somebody
// interrupted it. Call it before any other thread is made (signals.h).
[[nodiscard]] absl::StatusOr<WorkingSet> MeasureGuest(const std::string& guest, int seconds,
                                                      const Settings& settings);

// Writes `text` to the file, or to standard output for "-".
[[nodiscard]] absl::Status WriteOutput(const std::string& path, const std::string& text);

// The exit code for an error that ended a command before anything was moved; prints it.
[[nodiscard]] int FailCommand(const absl::Status& status);

}  // namespace ramferry
