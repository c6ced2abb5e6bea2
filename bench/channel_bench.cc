// Page channels over loopback TCP, against copying the same pages within this process.
//
//   channel_bench --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
//
// Each iteration moves 256 MiB in writes of one size and ends with a flush. "cold" lands in a
// memory file that has no pages yet, "warm" in one that has them all. The ratio of interest is that
// of bytes_per_second to BM_Memcpy's with the same destination: it is a fraction of what memory
// allows.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "tests/unit/tcp_test_certificates.h"
#include "tests/unit/tcp_test_guest.h"
#include "transport/tcp/tcp_connector.h"
#include "transport/tcp/tcp_listener.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kBytes = 256 << 20;

struct Memories {
  TestMemory source{TestMemory::Kind::kFile, kBytes / kPageBytes};
  TestMemory destination{TestMemory::Kind::kFile, kBytes / kPageBytes};

  Memories() {
    source.FillRandomly(1);
    destination.FillRandomly(2);
  }
  // Leaves the destination as the benchmark wants to find it.
  void Prepare(bool warm) const {
    if (warm) return;
    const MappedRegion region = destination.region();
    if (::fallocate(region.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kBytes) != 0) {
      std::abort();
    }
  }
};

// The source's pages in pieces of `size` bytes, for the same places: in order when the pieces are
// large, else shuffled, so that no two adjoin.
std::vector<PageWrite> Writes(const TestMemory& source, uint64_t size) {
  std::vector<uint64_t> places(kBytes / size);
  std::iota(places.begin(), places.end(), 0);
  if (size == kPageBytes) std::shuffle(places.begin(), places.end(), std::mt19937_64(3));
  std::vector<PageWrite> writes;
  writes.reserve(places.size());
  for (const uint64_t place : places) {
    writes.push_back({0, place * size, source.data() + place * size, size});
  }
  return writes;
}

// Arguments: bytes of a write, warm destination, encrypted.
void BM_Channel(benchmark::State& state) {
  const Memories memories;
  const auto writes = Writes(memories.source, static_cast<uint64_t>(state.range(0)));
  const TcpOptions options =
      state.range(2) != 0 ? TestCertificates::Shared().Options("one") : TcpOptions{};
  const std::vector<MappedRegion> regions{memories.destination.region()};
  auto listener = *TcpListener::Create("127.0.0.1", 0, options);
  auto receiver = *listener->Expect(regions, 1);
  auto connector = *TcpConnector::Create(options);
  const std::vector<MappedRegion> source{memories.source.region()};
  auto channels = *connector->Connect(receiver->offer(), source, In(10s));
  PageChannel& channel = *channels[0];
  const size_t batch = channel.capabilities().batch;
  for (auto _ : state) {
    state.PauseTiming();
    memories.Prepare(state.range(1) != 0);
    state.ResumeTiming();
    for (size_t i = 0; i < writes.size(); i += batch) {
      const size_t count = std::min(batch, writes.size() - i);
      if (!channel.Write(std::span(writes).subspan(i, count)).ok()) state.SkipWithError("write");
    }
    if (!channel.Flush(In(60s)).ok()) state.SkipWithError("flush");
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBytes));
}

// Arguments: bytes of a copy, warm destination.
void BM_Memcpy(benchmark::State& state) {
  const Memories memories;
  const auto writes = Writes(memories.source, static_cast<uint64_t>(state.range(0)));
  for (auto _ : state) {
    state.PauseTiming();
    memories.Prepare(state.range(1) != 0);
    state.ResumeTiming();
    for (const PageWrite& write : writes) {
      std::memcpy(memories.destination.data() + write.offset, write.bytes, write.length);
    }
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBytes));
}

// One page and its flush: what a round trip costs.
void BM_PageAndFlush(benchmark::State& state) {
  const Memories memories;
  const TcpOptions options =
      state.range(0) != 0 ? TestCertificates::Shared().Options("one") : TcpOptions{};
  const std::vector<MappedRegion> regions{memories.destination.region()};
  auto listener = *TcpListener::Create("127.0.0.1", 0, options);
  auto receiver = *listener->Expect(regions, 1);
  auto connector = *TcpConnector::Create(options);
  auto channels = *connector->Connect(receiver->offer(), {}, In(10s));
  const PageWrite write{0, 0, memories.source.data(), kPageBytes};
  for (auto _ : state) {
    if (!channels[0]->Write({&write, 1}).ok() || !channels[0]->Flush(In(60s)).ok()) {
      state.SkipWithError("flush");
    }
  }
}

BENCHMARK(BM_Memcpy)
    ->ArgNames({"bytes", "warm"})
    ->ArgsProduct({{1 << 20, kPageBytes}, {0, 1}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(BM_Channel)
    ->ArgNames({"bytes", "warm", "tls"})
    ->ArgsProduct({{1 << 20, kPageBytes}, {0, 1}, {0, 1}})
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(BM_PageAndFlush)
    ->ArgNames({"tls"})
    ->Arg(0)
    ->Arg(1)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ramferry

BENCHMARK_MAIN();
