// Scanning with and without work stealing: two workers, and all that is populated in the share of
// one.
//   build/release/bench/steal_bench
// The time is a round's: until the last worker has ended. (Two workers need two CPUs of their own.)
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstring>

#include "engine/worker_pool.h"
#include "engine/zero_scan.h"
#include "hypervisor-glue/tracking/memory_file.h"

namespace ramferry {
namespace {

constexpr uint64_t kPages = MiB(256).value() / kPageBytes;
constexpr uint64_t kSlicePages = MiB(2).value() / kPageBytes;

// `populated` percent of the memory, from its beginning, are there; the rest is holes. Zeros,
// because of those the scan reads every byte.
MemoryFile Memory(uint64_t populated) {
  auto file = *MemoryFile::Create(ByteCount(kPages * kPageBytes), "bench");
  std::memset(file.address(), 0, kPages * kPageBytes / 100 * populated);
  return file;
}

// Workers 0 and 1 are on nodes of their own; with stealing across, one helps the other.
void ScanTwoShares(benchmark::State& state) {
  const MemoryFile file = Memory(static_cast<uint64_t>(state.range(0)));
  const bool stealing = state.range(1) != 0;
  WorkerLayout layout;
  for (uint64_t first = 0; first < kPages; first += kSlicePages) {
    layout.slices.push_back({.region = 0, .pages = {first, kSlicePages}});
  }
  layout.shares = {layout.slices.size() / 2, layout.slices.size() - layout.slices.size() / 2};
  const std::vector<int> nodes = {0, 1};
  layout.steal =
      stealing ? NearestFirst(nodes, [](int a, int b) -> uint64_t { return a == b ? 10 : 20; })
               : StealOrder(2);
  WorkerPool pool(std::move(layout));
  std::atomic<uint64_t> zeros{0};
  for (auto _ : state) {
    pool.Run([&](uint32_t, size_t index) -> absl::Status {
          PageRuns runs;
          absl::Status status = file.PopulatedRuns(pool.slices()[index].pages, runs);
          for (const PageRun& run : runs) {
            for (uint64_t page = run.first; page < run.end();) {
              bool zero = false;
              page += SameKindPages(file.address() + (page << kPageShift), run.end() - page, zero);
              zeros.fetch_add(zero ? 1 : 0, std::memory_order_relaxed);
            }
          }
          return status;
        })
        .IgnoreError();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) *
                          static_cast<int64_t>(kPages * kPageBytes / 100) * state.range(0));
  state.SetLabel(stealing ? "stealing" : "each its own");
}
BENCHMARK(ScanTwoShares)
    ->ArgNames({"populated%", "stealing"})
    ->Args({50, 0})
    ->Args({50, 1})
    ->Args({75, 0})
    ->Args({75, 1})
    ->Args({100, 0})
    ->Args({100, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ramferry

BENCHMARK_MAIN();
