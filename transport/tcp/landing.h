// Puts pages into the memory of the destination guest, for one channel.
//
// The first touch of memory is the largest cost of a bulk round. Where the memory is a file in the
// page cache (tmpfs), pwrite(2) of whole pages from a small buffer that is still in the cache
// neither zeroes nor faults, and costs no more than memory that was there already; that is why
// pages are not received into the mapping. Other memory (huge pages, anonymous) is copied to.
//
// Arguments are trusted: frame_parser.h has checked them. Several channels may land in the same
// regions at once; one Landing serves one thread.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/guest_memory.h"
#include "base/page_run.h"

namespace ramferry::tcp {

class Landing {
 public:
  // `regions` must outlive the object.
  explicit Landing(std::span<const MappedRegion> regions);

  // Takes whole pages or parts of them; what adjoins the write before is joined to it. `bytes` must
  // stay as they are until Settle(). ResourceExhausted: no memory for them.
  [[nodiscard]] absl::Status Write(RegionId region, uint64_t offset,
                                   std::span<const std::byte> bytes);

  // Takes all of `length` bytes out of `pipe`; the region must be one that can_pwrite(). Settles.
  [[nodiscard]] absl::Status WriteFromPipe(RegionId region, uint64_t offset, int pipe,
                                           uint64_t length);

  // Makes whole pages zero, and gives their memory back where it is a file's. Settles first.
  [[nodiscard]] absl::Status Zero(RegionId region, uint64_t offset, uint64_t length);

  // After it, everything is in the guest's memory.
  [[nodiscard]] absl::Status Settle();

 private:
  std::span<const MappedRegion> regions_;
  // A run of pages not yet written: `pieces_` one after the other, from `begin_` up to `end_`.
  std::vector<iovec> pieces_;
  RegionId region_ = 0;
  uint64_t begin_ = 0;
  uint64_t end_ = 0;
};

}  // namespace ramferry::tcp
