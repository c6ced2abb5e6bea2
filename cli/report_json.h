// The report of a migration as JSON, the object that docs/operating.md documents.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "engine/report.h"

namespace ramferry {

[[nodiscard]] std::string ToJson(const MigrationReport& report);
// Whether a file may be written there, as far as that can be told before.
[[nodiscard]] absl::Status CheckWritable(const std::string& path);
[[nodiscard]] absl::Status WriteJson(const MigrationReport& report, const std::string& path);

}  // namespace ramferry
