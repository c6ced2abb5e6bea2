#include "hypervisor-glue/xen/sliced_bitmap.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/status.h"

namespace ramferry {
namespace {

constexpr uint64_t kBits = 64;

// The bits of word `index` that belong to pages of `part`.
uint64_t Mask(PageRun part, uint64_t index) {
  const uint64_t begin = std::max(part.first, index * kBits) - index * kBits;
  const uint64_t end = std::min(part.end(), (index + 1) * kBits) - index * kBits;
  const uint64_t below_end = end == kBits ? ~uint64_t{0} : (uint64_t{1} << end) - 1;
  return below_end & ~((uint64_t{1} << begin) - 1);
}

}  // namespace

SlicedBitmap::SlicedBitmap(uint64_t pages, Fetch fetch)
    : pages_(pages),
      fetch_(std::move(fetch)),
      dirty_((pages + kBits - 1) / kBits),
      fetched_(dirty_.size()),
      taken_(pages) {}

absl::Status SlicedBitmap::Take(PageRun part, int64_t offset, PageRuns& runs) {
  if (part.count == 0) return absl::OkStatus();
  if (part.end() > pages_) return absl::OutOfRangeError("a slice of pages that the guest lacks");
  const std::lock_guard lock(mutex_);
  const auto begin = taken_.begin() + static_cast<int64_t>(part.first);
  const auto end = taken_.begin() + static_cast<int64_t>(part.end());
  if (renew_ || std::find(begin, end, true) != end) {
    std::fill(fetched_.begin(), fetched_.end(), 0);
    RETURN_IF_ERROR(fetch_(fetched_));
    for (size_t i = 0; i < dirty_.size(); ++i) dirty_[i] |= fetched_[i];
    taken_.assign(pages_, false);
    renew_ = false;
  }
  std::fill(begin, end, true);
  Append(part, offset, runs);
  for (uint64_t i = part.first / kBits; i * kBits < part.end(); ++i) dirty_[i] &= ~Mask(part, i);
  return absl::OkStatus();
}

void SlicedBitmap::Look(PageRun part, int64_t offset, PageRuns& runs) const {
  const std::lock_guard lock(mutex_);
  Append(part, offset, runs);
}

void SlicedBitmap::Renew() {
  const std::lock_guard lock(mutex_);
  renew_ = true;
}

void SlicedBitmap::Mark(PageRun part) {
  const std::lock_guard lock(mutex_);
  for (uint64_t i = part.first / kBits; i * kBits < part.end(); ++i) dirty_[i] |= Mask(part, i);
}

void SlicedBitmap::Append(PageRun part, int64_t offset, PageRuns& runs) const {
  for (uint64_t i = part.first / kBits; i * kBits < part.end(); ++i) {
    for (uint64_t word = dirty_[i] & Mask(part, i); word != 0;) {
      const auto first = static_cast<uint64_t>(std::countr_zero(word));
      const auto count = static_cast<uint64_t>(std::countr_one(word >> first));
      AppendRun(runs,
                {.first = static_cast<uint64_t>(static_cast<int64_t>(i * kBits + first) + offset),
                 .count = count});
      if (first + count == kBits) break;
      word &= ~uint64_t{0} << (first + count);
    }
  }
}

}  // namespace ramferry
