// Hands the slices of a guest's memory to workers: each its own share first, then what the busiest
// other worker has left.
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
#include <memory>
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

class SliceQueue {
 public:
  SliceQueue(std::vector<Slice> slices, uint32_t workers);

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
  [[nodiscard]] std::optional<size_t> TakeFrom(Share& share);

  std::vector<Slice> slices_;
  std::unique_ptr<Share[]> shares_;
  uint32_t workers_;
};

}  // namespace ramferry
