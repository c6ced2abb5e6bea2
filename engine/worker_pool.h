// The workers of a migration: threads that run one job to completion over all slices, again and
// again.
//
//   WorkerPool pool(4, CutIntoSlices(regions, 4));
//   RETURN_IF_ERROR(pool.Run([&](uint32_t worker, size_t index) { return
//   Send(pool.slices()[index]); },
//                            [&](uint32_t worker) { return channels[worker]->Flush(...); }));
//
// Run returns when every worker has ended; the first error of any worker stops the others at their
// next slice and is what Run returns. One Run at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "engine/slice_queue.h"

namespace ramferry {

class WorkerPool {
 public:
  using SliceJob = std::function<absl::Status(uint32_t worker, size_t index)>;
  // Runs once in every worker when no slice is left, also when the worker had none.
  using FinishJob = std::function<absl::Status(uint32_t worker)>;

  WorkerPool(uint32_t workers, std::vector<Slice> slices);
  ~WorkerPool();

  // `from`: all slices, or only those that no worker had begun when the last Run failed.
  enum class From { kStart, kWhereItFailed };
  [[nodiscard]] absl::Status Run(SliceJob job, FinishJob finish = nullptr,
                                 From from = From::kStart);
  [[nodiscard]] const std::vector<Slice>& slices() const { return queue_.slices(); }
  [[nodiscard]] uint32_t workers() const { return static_cast<uint32_t>(threads_.size()); }

 private:
  void Work(uint32_t worker);
  [[nodiscard]] absl::Status RunOne(uint32_t worker);

  SliceQueue queue_;
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  SliceJob job_;
  FinishJob finish_;
  uint64_t generation_ = 0;  // counts Runs; a worker runs when it is ahead of its own
  uint32_t busy_ = 0;
  bool ending_ = false;
  absl::Status result_;
  std::vector<std::thread> threads_;
};

}  // namespace ramferry
