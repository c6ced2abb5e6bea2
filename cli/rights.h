// What this process may do to a guest: docs/security.md, "Rights", as findings for `ramferry
// check`.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ramferry {

struct ProcessRights {
  bool root = false;
  uint64_t capabilities = 0;  // effective, a bit each (capabilities(7))
  int ptrace_scope = 0;       // Yama's (kernel: admin-guide/LSM/Yama.rst); 0 also without Yama
};

// Of the calling process; an error where /proc cannot be read.
[[nodiscard]] absl::StatusOr<ProcessRights> OwnRights();

struct RightsFinding {
  absl::Status status;  // not OK: no guest can be moved; what to do
  std::string good;     // else what it has
  std::string limit;    // what it can not do with that, and why; empty: nothing
};
// Pure.
[[nodiscard]] RightsFinding JudgeRights(const ProcessRights& rights);

}  // namespace ramferry
