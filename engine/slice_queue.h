// Hands the slices of a guest's memory to workers: each its own share first, then what the busiest
// other worker has left: first of those on its own NUMA node, then of the next nearest, and so on.
//
//   SliceQueue queue(CutIntoSlices(regions, workers), workers);
//   queue.Refill();                                   // before every round
//   while (auto index = queue.Take(worker)) { ... }   // in each worker
//
// Take is lock-free and may be called by all workers at once; the rest by one thread between
// rounds.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/guest_memory.h"
#include "base/page_run.h"

namespace ramferry {

// All pages of all regions, in slices of 64 MiB, or smaller ones when that gives a worker fewer
// than eight; always whole multiples of 2 MiB, but for the end of a region.
[[nodiscard]] std::vector<Slice> CutIntoSlices(std::span<const MappedRegion> regions,
                                               uint32_t workers);

// For each worker the others that it takes from, nearest first: those of one tier are alike.
using StealOrder = std::vector<std::vector<std::vector<uint32_t>>>;
// Workers on these nodes (-1: anywhere, near to all). `distance` as HostTopology::Distance.
[[nodiscard]] StealOrder NearestFirst(std::span<const int> nodes,
                                      const std::function<uint64_t(int, int)>& distance);

class SliceQueue {
 public:
  // Equal shares; all workers are alike.
  SliceQueue(std::vector<Slice> slices, uint32_t workers);
  // Worker i begins with the next `shares[i]` slices: in all there are slices.size(). An `order`
  // that names nobody keeps a worker to its share.
  SliceQueue(std::vector<Slice> slices, const std::vector<size_t>& shares, StealOrder order);

  void Refill();
  // The index of a slice nobody has taken since Refill; nothing when there is none left.
  [[nodiscard]] std::optional<size_t> Take(uint32_t worker);
  [[nodiscard]] const std::vector<Slice>& slices() const { return slices_; }

 private:
  // The slices [next, end) of one worker. On a cache line of its own: workers write it all the
  // time.
  struct alignas(64) Share {
    std::atomic<size_t> next{0};
    size_t begin = 0;
    size_t end = 0;
  };
  static_assert(sizeof(Share) == 64);
  [[nodiscard]] static std::optional<size_t> TakeFrom(Share& share);

  std::vector<Slice> slices_;
  std::vector<Share> shares_;
  StealOrder order_;
};

}  // namespace ramferry
