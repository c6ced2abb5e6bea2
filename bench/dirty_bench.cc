// What it costs to collect the dirty pages of a guest, with the real tracker.
//
//   dirty_bench --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
//
// Each iteration dirties a part of 256 MiB (untimed: the faults are the guest's) and collects it.
// The argument is pages in a thousand; they are spread evenly, the worst case for runs, or adjoin
// ("packed"). `per_gib` is what a round pays before it sends the first byte; peeking, which
// clears nothing, is beside it.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>

#include "hypervisor-glue/tracking/memory_file.h"
#include "hypervisor-glue/tracking/uffd_tracker.h"

namespace ramferry {
namespace {

constexpr uint64_t kPages = MiB(256).value() / kPageBytes;

class Dirtied {
 public:
  explicit Dirtied(benchmark::State& state) : state_(state) {
    if (const absl::Status status = CheckUffdTracking(); !status.ok()) {
      state.SkipWithError(std::string(status.message()).c_str());
      return;
    }
    for (uint64_t page = 0; page < kPages; ++page) Touch(page);
    tracker_ = *UffdTracker::Create(
        ::getpid(), *OpenOwnUserfaultfd(),
        {{reinterpret_cast<uintptr_t>(file_.address()), file_.size().value()}});
    Collect();  // the first time, which all pages count as written
  }
  [[nodiscard]] bool usable() const { return tracker_ != nullptr; }
  void Dirty(bool packed) const {
    const uint64_t count = std::max<uint64_t>(kPages * state_.range(0) / 1000, 1);
    for (uint64_t i = 0; i < count; ++i) Touch(packed ? i : i * kPages / count);
  }
  void Collect() {
    runs_.clear();
    if (!tracker_->Collect(0, {0, kPages}, runs_).ok()) state_.SkipWithError("cannot collect");
  }
  void Peek() {
    runs_.clear();
    if (!tracker_->Peek(0, {0, kPages}, runs_).ok()) state_.SkipWithError("cannot peek");
  }
  void Report() const {
    state_.counters["runs"] = static_cast<double>(runs_.size());
    // 256 MiB an iteration are a quarter of a GiB; inverted, the rate is CPU time.
    state_.counters["per_gib"] = benchmark::Counter(
        0.25, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  }

 private:
  void Touch(uint64_t page) const {
    reinterpret_cast<volatile char*>(file_.address())[page * kPageBytes] = 1;
  }
  benchmark::State& state_;
  const MemoryFile file_ = *MemoryFile::Create(BytesIn(PageCount(kPages)), "bench");
  std::unique_ptr<WriteTracker> tracker_;
  PageRuns runs_;
};

void Collect(benchmark::State& state, bool packed) {
  Dirtied guest(state);
  if (!guest.usable()) return;
  for (auto _ : state) {
    state.PauseTiming();
    guest.Dirty(packed);
    state.ResumeTiming();
    guest.Collect();
  }
  guest.Report();
}
BENCHMARK_CAPTURE(Collect, spread, false)->Arg(1)->Arg(10)->Arg(100)->Arg(1000)->Iterations(40);
BENCHMARK_CAPTURE(Collect, packed, true)->Arg(1)->Arg(10)->Arg(100)->Iterations(40);

void BM_Peek(benchmark::State& state) {
  Dirtied guest(state);
  if (!guest.usable()) return;
  guest.Dirty(/*packed=*/false);
  for (auto _ : state) guest.Peek();
  guest.Report();
}
BENCHMARK(BM_Peek)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

}  // namespace
}  // namespace ramferry

BENCHMARK_MAIN();
