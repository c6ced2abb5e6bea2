// The report of a migration for a person: the table of rounds, and the downtime by cause.
#pragma once

#include <string>

#include "engine/report.h"

namespace ramferry {

[[nodiscard]] std::string FormatReport(const MigrationReport& report);
// One round as one line, without its end.
[[nodiscard]] std::string FormatRound(const RoundReport& round);
// The same of one that is under way.
[[nodiscard]] std::string FormatProgress(const RoundProgress& progress);

}  // namespace ramferry
