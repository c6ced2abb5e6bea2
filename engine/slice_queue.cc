#include "engine/slice_queue.h"

#include <algorithm>
#include <map>
#include <utility>

namespace ramferry {
namespace {

constexpr uint64_t kLargestSlice = MiB(64).value() / kPageBytes;
constexpr uint64_t kSliceStep = MiB(2).value() / kPageBytes;
constexpr uint64_t kSlicesPerWorker = 8;

}  // namespace

std::vector<Slice> CutIntoSlices(std::span<const MappedRegion> regions, uint32_t workers) {
  const uint64_t pages = PagesIn(regions).value();
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

StealOrder NearestFirst(std::span<const int> nodes,
                        const std::function<uint64_t(int, int)>& distance) {
  StealOrder order(nodes.size());
  for (uint32_t worker = 0; worker < nodes.size(); ++worker) {
    std::map<uint64_t, std::vector<uint32_t>> by_distance;
    for (uint32_t other = 0; other < nodes.size(); ++other) {
      if (other == worker) continue;
      by_distance[distance(nodes[worker], nodes[other])].push_back(other);
    }
    for (auto& [away, others] : by_distance) order[worker].push_back(std::move(others));
  }
  return order;
}

SliceQueue::SliceQueue(std::vector<Slice> slices, uint32_t workers)
    : SliceQueue(std::move(slices), {}, NearestFirst(std::vector<int>(workers, -1), [](int, int) {
                   return uint64_t{0};
                 })) {
  for (uint32_t worker = 0; worker < workers; ++worker) {
    shares_[worker].begin = slices_.size() * worker / workers;
    shares_[worker].end = slices_.size() * (worker + 1) / workers;
  }
  Refill();
}

SliceQueue::SliceQueue(std::vector<Slice> slices, const std::vector<size_t>& shares,
                       StealOrder order)
    : slices_(std::move(slices)), shares_(order.size()), order_(std::move(order)) {
  size_t begin = 0;
  for (size_t worker = 0; worker < shares.size(); ++worker) {
    shares_[worker].begin = begin;
    shares_[worker].end = begin += shares[worker];
  }
  Refill();
}

void SliceQueue::Refill() {
  for (Share& share : shares_) share.next.store(share.begin, std::memory_order_relaxed);
}

std::optional<size_t> SliceQueue::TakeFrom(Share& share) {
  // Counting past the end is harmless: Refill sets it back.
  const size_t index = share.next.fetch_add(1, std::memory_order_relaxed);
  if (index >= share.end) return std::nullopt;
  return index;
}

std::optional<size_t> SliceQueue::Take(uint32_t worker) {
  if (auto slice = TakeFrom(shares_[worker])) return slice;
  for (const std::vector<uint32_t>& tier : order_[worker]) {
    for (;;) {
      Share* busiest = nullptr;
      size_t most = 0;
      for (const uint32_t other : tier) {
        const size_t next = shares_[other].next.load(std::memory_order_relaxed);
        const size_t left = shares_[other].end > next ? shares_[other].end - next : 0;
        if (left > most) {
          most = left;
          busiest = &shares_[other];
        }
      }
      if (busiest == nullptr) break;
      if (auto slice = TakeFrom(*busiest)) return slice;
    }
  }
  return std::nullopt;
}

}  // namespace ramferry
