#include "engine/worker_pool.h"

#include <sched.h>

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "engine/options.h"

namespace ramferry {

uint32_t DefaultWorkers() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
  return static_cast<uint32_t>(std::clamp(CPU_COUNT(&allowed) / 2, 1, 8));
}

WorkerPool::WorkerPool(uint32_t workers, std::vector<Slice> slices)
    : queue_(std::move(slices), workers) {
  Start(workers);
}

WorkerPool::WorkerPool(WorkerLayout layout)
    : queue_(std::move(layout.slices), layout.shares, std::move(layout.steal)),
      cpus_(std::move(layout.cpus)) {
  Start(static_cast<uint32_t>(layout.shares.size()));
}

void WorkerPool::Start(uint32_t workers) {
  for (uint32_t worker = 0; worker < workers; ++worker) {
    threads_.emplace_back([this, worker] { Work(worker); });
  }
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status WorkerPool::Run(SliceJob job, FinishJob finish, From from) {
  std::unique_lock lock(mutex_);
  if (from == From::kStart) queue_.Refill();
  job_ = std::move(job);
  finish_ = std::move(finish);
  result_ = absl::OkStatus();
  failed_ = false;
  busy_ = workers();
  ++generation_;
  changed_.notify_all();
  while (!changed_.wait_for(lock, kWatchInterval, [this] { return busy_ == 0; })) {
    if (watch_ == nullptr) continue;
    lock.unlock();  // it may take its time: the workers shall not wait for it
    watch_();
    lock.lock();
  }
  return result_;
}

absl::Status WorkerPool::binding() const {
  const std::lock_guard lock(mutex_);
  return binding_;
}

absl::Status WorkerPool::RunOne(uint32_t worker) {
  while (!failed_.load(std::memory_order_relaxed)) {
    const auto index = queue_.Take(worker);
    if (!index) return finish_ != nullptr ? finish_(worker) : absl::OkStatus();
    RETURN_IF_ERROR(job_(worker, *index));
  }
  return absl::OkStatus();
}

void WorkerPool::Work(uint32_t worker) {
  uint64_t done = 0;
  const absl::Status bound = BindThisThread(CpusOf(worker));
  NameThisThread("rf-worker", worker);  // who sees the name sees it where it belongs
  std::unique_lock lock(mutex_);
  binding_.Update(bound);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || generation_ > done; });
    if (ending_) return;
    done = generation_;
    lock.unlock();
    const absl::Status status = RunOne(worker);
    if (!status.ok()) failed_.store(true, std::memory_order_relaxed);
    lock.lock();
    result_.Update(status);
    if (--busy_ == 0) changed_.notify_all();
  }
}

}  // namespace ramferry
