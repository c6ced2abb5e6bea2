// A small file that says what is to be done: read as a whole, or not at all.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace ramferry {

// `what` names it in messages, e.g. "the configuration". NotFound: there is none. Any other error:
// it cannot be read now, which must not be taken for an empty file; also where it is a directory,
// or larger than 1 MiB.
[[nodiscard]] absl::StatusOr<std::string> ReadTextFile(const std::string& path,
                                                       const std::string& what);

}  // namespace ramferry
