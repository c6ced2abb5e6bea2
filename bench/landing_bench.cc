// The floor of a bulk round over sockets: the ways that bytes which come over loopback TCP can get
// into a memory file that has no pages yet, with nothing else done. The source hands its pages over
// by sendfile(2), without a copy, in every case.
//
//   landing_bench --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
//
// What a page channel takes more than the best of these is its own; what it takes at all is the
// kernel's. Time is that of the transfer; CPU is of both ends.
#include <arpa/inet.h>
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/populate.h"
#include "base/unique_fd.h"
#include "tests/unit/tcp_test_guest.h"

namespace ramferry {
namespace {

constexpr uint64_t kBytes = 512 << 20;
constexpr uint64_t kSlice = 1 << 20;  // streams take turns
constexpr size_t kBufferBytes = 256 << 10;

enum Way { kSplice, kBufferAndPwrite, kMapping, kPopulatedMapping };
constexpr const char* kNames[] = {"splice", "buffer and pwrite", "mapping", "populated mapping"};

// A call that must do something: what it did. A benchmark has nothing better to do than to end.
uint64_t Done(ssize_t bytes) {
  if (bytes <= 0) std::abort();
  return static_cast<uint64_t>(bytes);
}

std::pair<UniqueFd, UniqueFd> Connected() {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  UniqueFd from(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::bind(listener.get(), generic, size) != 0 || ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), generic, &size) != 0 ||
      ::connect(from.get(), generic, size) != 0) {
    std::abort();
  }
  return {std::move(from), UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC))};
}

void Send(int socket, const MappedRegion& source, uint64_t begin, uint64_t end) {
  for (auto position = static_cast<off_t>(begin); static_cast<uint64_t>(position) < end;) {
    Done(::sendfile(socket, source.fd, &position, end - static_cast<uint64_t>(position)));
  }
}

class Receiver {
 public:
  Receiver(Way way, int socket, const MappedRegion& target)
      : way_(way), socket_(socket), target_(target), buffer_(kBufferBytes) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) std::abort();
    out_ = UniqueFd(ends[0]);
    in_ = UniqueFd(ends[1]);
    ::fcntl(in_.get(), F_SETPIPE_SZ, static_cast<int>(kSlice));
  }
  void Take(uint64_t at, uint64_t end) {
    if (way_ == kPopulatedMapping && !Populate(target_.address + at, end - at).ok()) std::abort();
    while (at < end) at += Some(at, end - at);
  }

 private:
  uint64_t Some(uint64_t at, uint64_t length) {
    auto position = static_cast<off_t>(at);
    switch (way_) {
      case kSplice: {
        const uint64_t got =
            Done(::splice(socket_, nullptr, in_.get(), nullptr, length, SPLICE_F_MOVE));
        for (uint64_t left = got; left > 0;) {
          left -= Done(::splice(out_.get(), nullptr, target_.fd, &position, left, SPLICE_F_MOVE));
        }
        return got;
      }
      case kBufferAndPwrite: {
        const uint64_t got =
            Done(::recv(socket_, buffer_.data(), std::min(length, kBufferBytes), 0));
        if (Done(::pwrite(target_.fd, buffer_.data(), got, position)) != got) std::abort();
        return got;
      }
      default:
        return Done(::recv(socket_, target_.address + at, length, 0));
    }
  }

  const Way way_;
  const int socket_;
  const MappedRegion& target_;
  std::vector<std::byte> buffer_;
  UniqueFd out_;
  UniqueFd in_;
};

// Arguments: a Way, streams.
void BM_Landing(benchmark::State& state) {
  const auto way = static_cast<Way>(state.range(0));
  const auto streams = static_cast<uint64_t>(state.range(1));
  TestMemory source(TestMemory::Kind::kFile, kBytes / kPageBytes);
  const TestMemory destination(TestMemory::Kind::kFile, kBytes / kPageBytes);
  source.FillRandomly(1);
  const MappedRegion from = source.region();
  const MappedRegion to = destination.region();
  state.SetLabel(kNames[way]);
  for (auto _ : state) {
    state.PauseTiming();
    if (::fallocate(to.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kBytes) != 0) {
      std::abort();
    }
    std::vector<std::thread> threads;
    std::vector<std::pair<UniqueFd, UniqueFd>> sockets;
    for (uint64_t i = 0; i < streams; ++i) sockets.push_back(Connected());
    state.ResumeTiming();
    const auto each_slice = [&](uint64_t stream, auto&& what) {
      for (uint64_t at = stream * kSlice; at < kBytes; at += streams * kSlice) what(at);
    };
    for (uint64_t i = 0; i < streams; ++i) {
      threads.emplace_back([&, i] {
        each_slice(i, [&](uint64_t at) { Send(sockets[i].first.get(), from, at, at + kSlice); });
      });
      threads.emplace_back([&, i] {
        Receiver receiver(way, sockets[i].second.get(), to);
        each_slice(i, [&](uint64_t at) { receiver.Take(at, at + kSlice); });
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBytes));
}

BENCHMARK(BM_Landing)
    ->ArgNames({"way", "streams"})
    ->ArgsProduct({{kSplice, kBufferAndPwrite, kMapping, kPopulatedMapping}, {1, 2}})
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ramferry

BENCHMARK_MAIN();
