// One end of a page channel over a wire: by DPDK or by the kernel's TCP. bench/dpdk puts two of
// them into network namespaces and compares.
//
//   dpdk_bench sink ADDRESS SECONDS            kernel TCP; prints "PORT TOKEN..." (hexadecimal)
//   dpdk_bench sink-raw ADDRESS SECONDS        the same, throws away what comes: prints "PORT"
//   dpdk_bench send tcp|dpdk|raw ADDRESS PORT SECONDS CHANNELS MTU TOKEN...
//
// A sender prints bytes, wall seconds and CPU seconds of its process; a sink its CPU seconds.
// "raw" is lwIP alone: one thread hands it the same bytes again and again.
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/tcp_test_guest.h"
#include "transport/dpdk/dpdk_transport.h"
#include "transport/dpdk/poller.h"
#include "transport/tcp/socket.h"
#include "transport/tcp/tcp_connector.h"
#include "transport/tcp/tcp_listener.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kPages = 16384;  // 64 MiB, again and again
constexpr uint64_t kRun = 64;       // pages of a write

double CpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

template <class Value>
Value OrDie(absl::StatusOr<Value> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "dpdk_bench: %s\n", std::string(value.status().message()).c_str());
    std::exit(1);
  }
  return *std::move(value);
}

std::string Hex(const std::string& bytes) {
  std::string text;
  for (const unsigned char c : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", c);
    text += two;
  }
  return text;
}
std::string Bytes(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

int Sink(const std::string& address, int seconds) {
  TestMemory memory(TestMemory::Kind::kFile, kPages);
  memory.FillRandomly(1);
  auto listener = OrDie(TcpListener::Create(address, 0, {}));
  auto receiver = OrDie(listener->Expect(std::vector<MappedRegion>{memory.region()}, 8));
  std::printf("%d", listener->port());
  for (const std::string& token : receiver->offer().tokens) std::printf(" %s", Hex(token).c_str());
  std::printf("\n");
  std::fflush(stdout);
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  std::printf("%f\n", CpuSeconds());
  return 0;
}

int SinkRaw(const std::string& address, int seconds) {
  const UniqueFd listening = OrDie(tcp::ListenAt(address, 0));
  std::printf("%d\n", OrDie(tcp::PortOf(listening)));
  std::fflush(stdout);
  std::vector<std::byte> buffer(256 * 1024);
  const Deadline end = In(std::chrono::seconds(seconds));
  UniqueFd peer;
  while (Clock::now() < end) {
    pollfd waiting{.fd = peer.valid() ? peer.get() : listening.get(), .events = POLLIN};
    if (::poll(&waiting, 1, MillisecondsLeft(end)) <= 0) continue;
    if (!peer.valid()) {
      peer.Reset(::accept(listening.get(), nullptr, nullptr));
    } else if (::recv(peer.get(), buffer.data(), buffer.size(), 0) <= 0) {
      ::usleep(1000);
    }
  }
  std::printf("%f\n", CpuSeconds());
  return 0;
}

void Report(uint64_t bytes, Deadline begin, double cpu) {
  std::printf("%llu %f %f\n", static_cast<unsigned long long>(bytes),
              MillisecondsBetween(begin, Clock::now()) / 1000, CpuSeconds() - cpu);
}

uint64_t FillChannel(PageChannel& channel, const TestMemory& memory, Deadline end) {
  uint64_t sent = 0;
  while (Clock::now() < end) {
    std::vector<PageWrite> writes;
    for (uint64_t page = 0; page < kPages / 4; page += kRun) {
      writes.push_back({0, page * kPageBytes, memory.page(page), kRun * kPageBytes});
    }
    if (!channel.Write(writes).ok() || !channel.Flush(In(60s)).ok()) std::exit(1);
    sent += kPages / 4 * kPageBytes;
  }
  return sent;
}

int Send(const std::string& kind, const std::vector<std::string>& words) {
  const std::string& address = words[0];
  const auto port = static_cast<uint16_t>(std::stoi(words[1]));
  const auto seconds = std::chrono::seconds(std::stoi(words[2]));
  const size_t channels = std::stoul(words[3]);
  const auto mtu = static_cast<uint32_t>(std::stoi(words[4]));
  std::shared_ptr<dpdk::Poller> poller;
  if (kind != "tcp") {
    poller = OrDie(dpdk::Poller::Get({.device = "wire", .address = "10.99.0.3/24", .mtu = mtu}));
  }
  if (kind == "raw") {
    auto connection = OrDie(poller->Connect(address, port, 5s, -1, In(10s)));
    const std::vector<std::byte> block(128 * 1024, std::byte{0x5a});
    uint64_t sent = 0;
    const double cpu = CpuSeconds();
    const Deadline begin = Clock::now();
    while (Clock::now() < begin + seconds) {
      const size_t took = connection->Send(block);
      sent += took;
      if (took == 0 && !connection->Wait(dpdk::Connection::kRoom, -1, In(10s)).ok()) return 1;
    }
    Report(sent, begin, cpu);
    connection->Leave();
    return 0;
  }
  TestMemory memory(TestMemory::Kind::kFile, kPages);
  memory.FillRandomly(2);
  ChannelOffer offer{.transport = "tcp", .address = address, .port = port};
  for (size_t i = 0; i < channels; ++i) offer.tokens.push_back(Bytes(words[5 + i]));
  std::unique_ptr<ChannelConnector> connector;
  if (kind == "dpdk") {
    connector = OrDie(dpdk::DpdkConnector::Create(poller, {}));
  } else {
    connector = OrDie(TcpConnector::Create({}));
  }
  auto opened =
      OrDie(connector->Connect(offer, std::vector<MappedRegion>{memory.region()}, In(10s)));
  std::vector<std::thread> workers;
  std::vector<uint64_t> sent(channels);
  const double cpu = CpuSeconds();
  const Deadline begin = Clock::now();
  for (size_t i = 0; i < channels; ++i) {
    workers.emplace_back([&, i] { sent[i] = FillChannel(*opened[i], memory, begin + seconds); });
  }
  for (std::thread& worker : workers) worker.join();
  uint64_t all = 0;
  for (const uint64_t bytes : sent) all += bytes;
  Report(all, begin, cpu);
  return 0;
}

int Run(const std::vector<std::string>& words) {
  if (words.size() == 3 && words[0] == "sink") return Sink(words[1], std::stoi(words[2]));
  if (words.size() == 3 && words[0] == "sink-raw") return SinkRaw(words[1], std::stoi(words[2]));
  if (words.size() >= 7 && words[0] == "send") {
    return Send(words[1], std::vector<std::string>(words.begin() + 2, words.end()));
  }
  std::fprintf(stderr, "see the head of bench/dpdk_bench.cc\n");
  return 2;
}

}  // namespace
}  // namespace ramferry

int main(int argc, char** argv) {
  return ramferry::Run({argv + 1, argv + argc});
}
