// A digest of a guest's memory that both sides compute alike, for --verify.
//
// SHA-256 over the pages of a slice that are not zero, each with its number: a hole and a page of
// zeros are the same memory, and neither side has to read holes. Equal digests mean equal bytes, as
// far as SHA-256 can say.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/guest_memory.h"
#include "base/page_run.h"

namespace ramferry {

// 32 bytes. `populated` are the runs of `slice` that may hold something other than zeros.
[[nodiscard]] absl::StatusOr<std::string> DigestSlice(const MappedRegion& region,
                                                      const PageRuns& populated);

}  // namespace ramferry
