// Slices: every page in exactly one, every slice taken exactly once. Workers: the first error
// counts, stops the others, and the pool can run again.
#include <atomic>
#include <barrier>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "engine/slice_queue.h"
#include "engine/worker_pool.h"
#include "gtest/gtest.h"

namespace ramferry {
namespace {

// Regions of so many pages each. Nobody looks at the memory.
std::vector<MappedRegion> RegionsOf(const std::vector<uint64_t>& pages) {
  std::vector<MappedRegion> regions;
  for (const uint64_t count : pages) {
    regions.push_back({.description = {.name = "r", .size = ByteCount(count * kPageBytes)}});
  }
  return regions;
}

TEST(CutIntoSlices, every_page_is_in_exactly_one_slice) {
  const std::vector<std::vector<uint64_t>> guests = {
      {1}, {511}, {512}, {513}, {0, 7, 0}, {262144}, {3, 100000, 512, 1}, {1 << 20, 5}};
  for (const std::vector<uint64_t>& pages : guests) {
    for (const uint32_t workers : {1U, 2U, 3U, 8U, 64U}) {
      const std::vector<MappedRegion> regions = RegionsOf(pages);
      std::vector<uint64_t> next(regions.size());
      for (const Slice& slice : CutIntoSlices(regions, workers)) {
        ASSERT_LT(slice.region, regions.size());
        ASSERT_EQ(slice.pages.first, next[slice.region]);
        ASSERT_GT(slice.pages.count, 0U);
        ASSERT_EQ(slice.pages.first % 512, 0U) << "2 MiB: bitmaps share no word, huge pages no cut";
        next[slice.region] = slice.pages.end();
      }
      EXPECT_EQ(next, pages) << workers << " workers";
    }
  }
}

TEST(CutIntoSlices, small_guests_give_every_worker_some_and_large_ones_no_giants) {
  EXPECT_GE(CutIntoSlices(RegionsOf({16384}), 4).size(), 32U);  // 64 MiB
  for (const Slice& slice : CutIntoSlices(RegionsOf({16 << 20}), 1)) {
    ASSERT_LE(slice.pages.count, MiB(64).value() / kPageBytes);
  }
}

TEST(SliceQueue, many_threads_take_every_slice_exactly_once_again_after_refill) {
  constexpr uint32_t kWorkers = 8;
  SliceQueue queue(CutIntoSlices(RegionsOf({1 << 20, 700}), kWorkers), kWorkers);
  for (int round = 0; round < 20; ++round) {
    queue.Refill();
    std::vector<std::atomic<int>> taken(queue.slices().size());
    std::barrier start(kWorkers);
    std::vector<std::thread> threads;
    for (uint32_t worker = 0; worker < kWorkers; ++worker) {
      threads.emplace_back([&, worker] {
        start.arrive_and_wait();
        while (const auto index = queue.Take(worker)) taken[*index].fetch_add(1);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t i = 0; i < taken.size(); ++i) ASSERT_EQ(taken[i].load(), 1) << "slice " << i;
  }
}

TEST(SliceQueue, one_worker_steals_all_that_the_others_do_not_take) {
  SliceQueue queue(CutIntoSlices(RegionsOf({100000}), 4), 4);
  std::set<size_t> taken;
  while (const auto index = queue.Take(2)) EXPECT_TRUE(taken.insert(*index).second);
  EXPECT_EQ(taken.size(), queue.slices().size());
  for (uint32_t worker = 0; worker < 4; ++worker) EXPECT_FALSE(queue.Take(worker).has_value());
}

TEST(SliceQueue, a_worker_takes_its_own_share_first_then_from_the_busiest) {
  std::vector<Slice> slices;
  for (uint64_t i = 0; i < 9; ++i) slices.push_back({.region = 0, .pages = {i * 512, 512}});
  SliceQueue queue(slices, 3);  // shares 0-2, 3-5, 6-8
  EXPECT_EQ(queue.Take(1), 3U);
  EXPECT_EQ(queue.Take(2), 6U);
  EXPECT_EQ(queue.Take(2), 7U);
  EXPECT_EQ(queue.Take(2), 8U);
  EXPECT_EQ(queue.Take(2), 0U);  // worker 0 has three left, worker 1 two
}

TEST(SliceQueue, more_workers_than_slices) {
  SliceQueue queue({{.region = 0, .pages = {0, 1}}}, 5);
  EXPECT_EQ(queue.Take(0), 0U);
  for (uint32_t worker = 0; worker < 5; ++worker) EXPECT_FALSE(queue.Take(worker).has_value());
}

TEST(WorkerPool, all_slices_are_worked_on_once_and_every_worker_finishes) {
  WorkerPool pool(4, CutIntoSlices(RegionsOf({100000}), 4));
  for (int round = 0; round < 50; ++round) {
    std::vector<std::atomic<int>> seen(pool.slices().size());
    std::vector<std::atomic<int>> finished(4);
    ASSERT_TRUE(pool.Run(
                        [&](uint32_t, size_t index) {
                          seen[index].fetch_add(1);
                          return absl::OkStatus();
                        },
                        [&](uint32_t worker) {
                          finished[worker].fetch_add(1);
                          return absl::OkStatus();
                        })
                    .ok());
    for (const auto& count : seen) ASSERT_EQ(count.load(), 1);
    for (const auto& count : finished) ASSERT_EQ(count.load(), 1);
  }
}

TEST(WorkerPool, first_error_wins_stops_the_others_and_the_pool_runs_again) {
  constexpr uint32_t kWorkers = 4;
  WorkerPool pool(kWorkers, CutIntoSlices(RegionsOf({100000}), kWorkers));
  std::atomic<int> later{0};
  std::barrier together(kWorkers);
  std::atomic<int> finished{0};
  std::vector<std::atomic<bool>> begun(kWorkers);
  const absl::Status status = pool.Run(
      [&](uint32_t worker, size_t) -> absl::Status {
        if (begun[worker].exchange(true)) {
          later.fetch_add(1);
          return absl::OkStatus();
        }
        together.arrive_and_wait();  // all hold a slice
        return absl::DataLossError("worker");
      },
      [&](uint32_t) {
        finished.fetch_add(1);
        return absl::OkStatus();
      });
  EXPECT_EQ(status, absl::DataLossError("worker"));
  EXPECT_EQ(later.load(), 0) << "a worker that failed goes on";
  EXPECT_EQ(finished.load(), 0) << "a worker that failed may not say that it has flushed";

  std::atomic<size_t> done{0};
  EXPECT_TRUE(pool.Run([&](uint32_t, size_t) {
                    done.fetch_add(1);
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(done.load(), pool.slices().size());
}

TEST(WorkerPool, others_stop_at_their_next_slice_after_an_error) {
  WorkerPool pool(2, CutIntoSlices(RegionsOf({1 << 24}), 2));
  std::mutex mutex;
  std::condition_variable changed;
  bool failing = false;
  std::atomic<size_t> done{0};
  const absl::Status status = pool.Run([&](uint32_t, size_t index) -> absl::Status {
    if (index == 0) {
      const std::lock_guard lock(mutex);
      failing = true;
      changed.notify_all();
      return absl::AbortedError("first");
    }
    // The others reach a slice before the error, and see it soon after.
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return failing; });
    lock.unlock();
    done.fetch_add(1);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return absl::OkStatus();
  });
  EXPECT_EQ(status, absl::AbortedError("first"));
  EXPECT_LT(done.load(), pool.slices().size() - 1);
}

TEST(WorkerPool, whoever_watches_is_called_by_the_caller_while_the_workers_work) {
  WorkerPool pool(2, CutIntoSlices(RegionsOf({5000}), 2));
  std::mutex mutex;
  std::condition_variable changed;
  int seen = 0;
  pool.SetWatch([&, caller = std::this_thread::get_id()] {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    const std::lock_guard lock(mutex);
    ++seen;
    changed.notify_all();
  });
  const absl::Status status = pool.Run([&](uint32_t, size_t) {
    std::unique_lock lock(mutex);
    const bool called = changed.wait_for(lock, std::chrono::seconds(60), [&] { return seen >= 2; });
    return called ? absl::OkStatus() : absl::DeadlineExceededError("nobody watched");
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(WorkerPool, an_error_while_finishing_is_an_error_of_the_run) {
  WorkerPool pool(3, CutIntoSlices(RegionsOf({5000}), 3));
  const absl::Status status =
      pool.Run([](uint32_t, size_t) { return absl::OkStatus(); },
               [](uint32_t worker) {
                 return worker == 1 ? absl::UnavailableError("flush") : absl::OkStatus();
               });
  EXPECT_EQ(status, absl::UnavailableError("flush"));
}

}  // namespace
}  // namespace ramferry
