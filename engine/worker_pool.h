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
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/cpu_set.h"
#include "engine/slice_queue.h"

namespace ramferry {

// Where the workers are and what they begin with (source_placement.h makes one).
struct WorkerLayout {
  std::vector<Slice> slices;   // in the order of the workers that begin with them
  std::vector<size_t> shares;  // how many of them each worker begins with
  StealOrder steal;
  std::vector<CpuSet> cpus;  // where each is bound to; an empty set, or none at all: nowhere
};

class WorkerPool {
 public:
  using SliceJob = std::function<absl::Status(uint32_t worker, size_t index)>;
  // Runs once in every worker when no slice is left, also when the worker had none.
  using FinishJob = std::function<absl::Status(uint32_t worker)>;

  WorkerPool(uint32_t workers, std::vector<Slice> slices);
  explicit WorkerPool(WorkerLayout layout);
  ~WorkerPool();

  // `from`: all slices, or only those that no worker had begun when the last Run failed.
  enum class From { kStart, kWhereItFailed };
  [[nodiscard]] absl::Status Run(SliceJob job, FinishJob finish = nullptr,
                                 From from = From::kStart);
  // Called by Run in its caller's thread, every kWatchInterval while the workers work.
  void SetWatch(std::function<void()> watch) { watch_ = std::move(watch); }
  static constexpr std::chrono::milliseconds kWatchInterval{250};
  [[nodiscard]] const std::vector<Slice>& slices() const { return queue_.slices(); }
  // Why a worker could not be bound to its CPUs, or OK. It works all the same. After a Run.
  [[nodiscard]] absl::Status binding() const;
  // Where the worker is bound to; empty: nowhere.
  [[nodiscard]] CpuSet CpusOf(size_t worker) const {
    return worker < cpus_.size() ? cpus_[worker] : CpuSet();
  }
  [[nodiscard]] uint32_t workers() const { return static_cast<uint32_t>(threads_.size()); }

 private:
  void Start(uint32_t workers);
  void Work(uint32_t worker);
  [[nodiscard]] absl::Status RunOne(uint32_t worker);

  SliceQueue queue_;
  const std::vector<CpuSet> cpus_;
  std::function<void()> watch_;
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  SliceJob job_;
  FinishJob finish_;
  uint64_t generation_ = 0;  // counts Runs; a worker runs when it is ahead of its own
  uint32_t busy_ = 0;
  bool ending_ = false;
  absl::Status result_;
  absl::Status binding_;
  std::vector<std::thread> threads_;
};

}  // namespace ramferry
