#include "engine/slice_queue.h"

#include <algorithm>
#include <utility>

namespace ramferry {
namespace {

constexpr uint64_t kLargestSlice = MiB(64).value() / kPageBytes;
constexpr uint64_t kSliceStep = MiB(2).value() / kPageBytes;
constexpr uint64_t kSlicesPerWorker = 8;

}  // namespace

std::vector<Slice> CutIntoSlices(std::span<const MappedRegion> regions, uint32_t workers) {
  uint64_t pages = 0;
  for (const MappedRegion& region : regions) pages += region.pages();
  const uint64_t fair =
      pages / (kSlicesPerWorker * std::max(workers, 1U)) / kSliceStep * kSliceStep;
  const uint64_t size = std::clamp(fair, kSliceStep, kLargestSlice);
  std::vector<Slice> slices;
  for (size_t region = 0; region < regions.size(); ++region) {
    for (uint64_t first = 0; first < regions[region].pages(); first += size) {
      slices.push_back({.region = static_cast<RegionId>(region),
                        .pages = {first, std::min(size, regions[region].pages() - first)}});
    }
  }
  return slices;
}

SliceQueue::SliceQueue(std::vector<Slice> slices, uint32_t workers)
    : slices_(std::move(slices)), shares_(new Share[workers]), workers_(workers) {
  for (uint32_t worker = 0; worker < workers; ++worker) {
    shares_[worker].begin = slices_.size() * worker / workers;
    shares_[worker].end = slices_.size() * (worker + 1) / workers;
  }
  Refill();
}

void SliceQueue::Refill() {
  for (uint32_t worker = 0; worker < workers_; ++worker) {
    shares_[worker].next.store(shares_[worker].begin, std::memory_order_relaxed);
  }
}

std::optional<size_t> SliceQueue::TakeFrom(Share& share) {
  // Counting past the end is harmless: Refill sets it back.
  const size_t index = share.next.fetch_add(1, std::memory_order_relaxed);
  if (index >= share.end) return std::nullopt;
  return index;
}

std::optional<size_t> SliceQueue::Take(uint32_t worker) {
  if (auto slice = TakeFrom(shares_[worker])) return slice;
  for (;;) {
    Share* busiest = nullptr;
    size_t most = 0;
    for (uint32_t other = 0; other < workers_; ++other) {
      const size_t next = shares_[other].next.load(std::memory_order_relaxed);
      const size_t left = shares_[other].end > next ? shares_[other].end - next : 0;
      if (left > most) {
        most = left;
        busiest = &shares_[other];
      }
    }
    if (busiest == nullptr) return std::nullopt;
    if (auto slice = TakeFrom(*busiest)) return slice;
  }
}

}  // namespace ramferry
