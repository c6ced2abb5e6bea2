// What it costs to tell zero pages from others, against copying them.
//
//   zero_bench --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
//
// 64 MiB, more than the caches hold. The ratio of interest is that of bytes_per_second to
// BM_Memcpy's: a page that is not zero shows it in its first cache line (nearly free), unless the
// line is zero ("late": the last byte counts); a page that is zero is read to its end.
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>

#include "engine/zero_scan.h"
#include "hypervisor-glue/tracking/memory_file.h"

namespace ramferry {
namespace {

constexpr ByteCount kSize = MiB(64);
constexpr uint64_t kPages = kSize.value() / kPageBytes;

enum class Contents { kZero, kFull, kLate, kMixed };

MemoryFile Filled(Contents contents) {
  MemoryFile file = *MemoryFile::Create(kSize, "bench");
  std::memset(file.address(), contents == Contents::kFull ? 0x5a : 0, kSize.value());
  for (uint64_t page = 0; page < kPages; ++page) {
    std::byte* bytes = file.address() + page * kPageBytes;
    if (contents == Contents::kLate) bytes[kPageBytes - 1] = std::byte(1);
    if (contents == Contents::kMixed && page % 2 == 0) std::memset(bytes, 0x5a, kPageBytes);
  }
  return file;
}

void Scan(benchmark::State& state, Contents contents) {
  const MemoryFile file = Filled(contents);
  for (auto _ : state) {
    uint64_t zeros = 0;
    for (uint64_t page = 0; page < kPages;) {
      bool zero = false;
      const uint64_t same = SameKindPages(file.address() + page * kPageBytes, kPages - page, zero);
      if (zero) zeros += same;
      page += same;
    }
    benchmark::DoNotOptimize(zeros);
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kSize.value()));
}
BENCHMARK_CAPTURE(Scan, zero, Contents::kZero);
BENCHMARK_CAPTURE(Scan, full, Contents::kFull);
BENCHMARK_CAPTURE(Scan, late, Contents::kLate);
BENCHMARK_CAPTURE(Scan, mixed, Contents::kMixed);

void BM_Memcpy(benchmark::State& state) {
  const MemoryFile from = Filled(Contents::kFull);
  const MemoryFile to = Filled(Contents::kFull);
  for (auto _ : state) {
    std::memcpy(to.address(), from.address(), kSize.value());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kSize.value()));
}
BENCHMARK(BM_Memcpy);

}  // namespace
}  // namespace ramferry

BENCHMARK_MAIN();
