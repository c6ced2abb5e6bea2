// A directory whose files decide what becomes of guests: nobody else may put any there.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace ramferry {

// Makes `path` (mode 0700) and what leads to it when it is missing. FailedPrecondition: others than
// its owner can write to it. `what` names it in messages, e.g. "state directory".
[[nodiscard]] absl::Status EnsurePrivateDirectory(const std::string& path, const std::string& what);

}  // namespace ramferry
