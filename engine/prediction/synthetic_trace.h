// Guests that no test machine has: a dirty trace from a few numbers.
//
//   ASSIGN_OR_RETURN(SyntheticWorkload workload,
//                    ParseSyntheticWorkload("memory=1T,working-set=64G,rate=500000,pattern=hot"));
//   DirtyTrace trace = TraceOf(workload);
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/units.h"
#include "engine/prediction/dirty_trace.h"

namespace ramferry {

enum class WritePattern {
  kUniform,     // anywhere in the working set, independently
  kSequential,  // page after page of the working set, and again
  kHot,         // seven of eight writes go to a sixteenth of the working set
  kMoving,      // uniform, and the working set wanders: once a minute it is wholly elsewhere
  kBursty,      // uniform, in bursts: four times the rate for a quarter of every two seconds
};

struct SyntheticWorkload {
  ByteCount memory;
  double contents = 1;  // part of the memory that is not zeros
  ByteCount working_set;
  double rate = 0;  // writes a second, each of one page, repetitions counted
  WritePattern pattern = WritePattern::kUniform;
};

// KEY=VALUE,... with the keys memory, working-set (sizes with K, M, G or T), rate, and, if wanted,
// pattern and contents. InvalidArgument says which is wrong and what is allowed.
[[nodiscard]] absl::StatusOr<SyntheticWorkload> ParseSyntheticWorkload(std::string_view text);
[[nodiscard]] DirtyTrace TraceOf(const SyntheticWorkload& workload);

}  // namespace ramferry
