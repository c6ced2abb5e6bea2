// The report of a migration as JSON, the object that docs/operating.md documents.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "engine/report.h"

namespace ramferry {

[[nodiscard]] std::string ToJson(const MigrationReport& report);
[[nodiscard]] absl::Status WriteJson(const MigrationReport& report, const std::string& path);

}  // namespace ramferry
