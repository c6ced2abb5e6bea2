// Memory that must be there before it is written: where a huge page cannot be had, a plain write to
// a mapped file ends the process (SIGBUS), and this returns an error instead.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

namespace ramferry {

// Sees to it that `length` bytes at `address`, both multiples of 4 KiB and in a writable mapping,
// have memory; what has keeps its contents. ResourceExhausted: there is none left. Source:
// madvise(2), MADV_POPULATE_WRITE; kernels before 5.14 do not have it, and there this does nothing.
[[nodiscard]] absl::Status Populate(std::byte* address, uint64_t length);

}  // namespace ramferry
