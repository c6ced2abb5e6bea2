// Moves memory between two machines through RDMA page channels, without a guest, and proves that
// every byte arrived. For the lab (scenario rdma_channel) and for real hardware (docs/rdma.md).
//
//   destination:  rdma_probe receive OFFER DONE MIB CHANNELS BUDGET_MIB ADDRESS [MODE]
//   source:       rdma_probe send    OFFER DONE MIB CHANNELS BUDGET_MIB ADDRESS [MODE]
//   either:       rdma_probe check     what ramferry::rdma::ProbeRdma finds
//
// OFFER and DONE are files that both see: how to connect, and the page digests at the end. A BUDGET
// of 0 pins without limit. The source fills three quarters of its memory with random pages, sends
// them in a bulk round, then in three rounds rewrites scattered pages, some of them with zeros, and
// sends these, then three times without zeros. The last quarter is never touched: it must stay a
// hole on both sides. MODE "unregistered" (send) goes through the staging ring, as for memory that
// a device cannot register; "until-failure" (send) repeats the bulk round until the channels fail;
// "on-demand" (both) has the devices fault pages in instead of pinning them; "tcp" (both) takes
// Ramferry's TCP channels, in the clear, to compare with.
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"
#include "fmt/format.h"
#include "transport/rdma/check.h"
#include "transport/rdma/rdma_transport.h"
#include "transport/tcp/tcp_connector.h"
#include "transport/tcp/tcp_listener.h"

namespace ramferry {
namespace {

using std::chrono::seconds;

struct Arguments {
  std::string offer_file;
  std::string done_file;
  uint64_t bytes = 0;
  size_t channels = 1;
  ByteCount budget;
  std::string address;
  std::string mode;
};

class TestMemory {
 public:
  explicit TestMemory(uint64_t bytes, bool can_register) : fd_(::memfd_create("probe", 0)) {
    if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) std::abort();
    region_.description.name = "ram";
    region_.description.size = ByteCount(bytes);
    region_.address = static_cast<std::byte*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0));
    region_.fd = fd_.get();
    region_.can_register = can_register;
  }
  [[nodiscard]] const MappedRegion& region() const { return region_; }
  [[nodiscard]] std::byte* page(uint64_t index) const {
    return region_.address + index * kPageBytes;
  }
  [[nodiscard]] uint64_t populated() const {
    struct stat status {};
    ::fstat(fd_.get(), &status);
    return static_cast<uint64_t>(status.st_blocks) * 512;
  }
  [[nodiscard]] uint64_t Digest(uint64_t index) const {
    const auto* words = reinterpret_cast<const uint64_t*>(page(index));
    uint64_t digest = 0x9e3779b97f4a7c15;
    for (size_t i = 0; i < kPageBytes / 8; ++i) {
      digest = (digest ^ words[i]) * 0xff51afd7ed558ccd;
      digest ^= digest >> 29;
    }
    return digest;
  }

 private:
  UniqueFd fd_;
  MappedRegion region_;
};

std::string Hex(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return text;
}

std::string FromHex(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

double CpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

// A file appears whole or not at all.
void WriteFile(const std::string& path, const std::string& text) {
  std::ofstream(path + ".new", std::ios::binary) << text;
  std::rename((path + ".new").c_str(), path.c_str());
}

absl::Status Receive(const Arguments& arguments) {
  const TestMemory memory(arguments.bytes, true);
  std::unique_ptr<ChannelListener> listener = std::make_unique<rdma::RdmaListener>(
      rdma::RdmaOptions{.address = arguments.address,
                        .pin_budget = arguments.budget,
                        .on_demand = arguments.mode == "on-demand"});
  if (arguments.mode == "tcp") {
    ASSIGN_OR_RETURN(listener, TcpListener::Create(arguments.address, 0, {}));
  }
  ASSIGN_OR_RETURN(const auto receiver,
                   listener->Expect({&memory.region(), 1}, arguments.channels));
  std::string offer = fmt::format("{} {}\n", arguments.address, receiver->offer().port);
  for (const std::string& token : receiver->offer().tokens) offer += Hex(token) + "\n";
  WriteFile(arguments.offer_file, offer);

  std::vector<uint64_t> expected(arguments.bytes / kPageBytes);
  for (;;) {
    std::ifstream done(arguments.done_file, std::ios::binary);
    if (done.read(reinterpret_cast<char*>(expected.data()),
                  static_cast<std::streamsize>(expected.size() * 8))) {
      break;
    }
    RETURN_IF_ERROR(receiver->status());
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  receiver->Stop();
  uint64_t wrong = 0;
  const uint64_t populated = memory.populated();
  for (uint64_t page = 0; page < expected.size(); ++page) {
    if (memory.Digest(page) != expected[page]) ++wrong;
  }
  fmt::print("received: {} of {} pages wrong, {} MiB populated\n", wrong, expected.size(),
             populated >> 20);
  if (wrong != 0) return absl::DataLossError("pages differ");
  if (populated > arguments.bytes * 3 / 4 + MiB(4).value()) {
    return absl::InternalError("holes were populated");
  }
  return absl::OkStatus();
}

class Sender {
 public:
  Sender(TestMemory& memory, std::vector<std::unique_ptr<PageChannel>> channels)
      : memory_(memory), channels_(std::move(channels)) {}

  // Channel `i` of n sends every n-th piece of work; then all flush.
  template <class Work>
  absl::Status Round(const char* name, Work work) {
    const auto before = PayloadAndTime();
    std::vector<absl::Status> results(channels_.size());
    std::vector<std::thread> threads;
    std::vector<double> told(channels_.size());  // when all was handed to the channel
    for (size_t i = 0; i < channels_.size(); ++i) {
      threads.emplace_back([&, i] {
        results[i] = work(*channels_[i], i);
        told[i] = PayloadAndTime().time;
        if (results[i].ok()) results[i] = channels_[i]->Flush(In(seconds(60)));
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& result : results) RETURN_IF_ERROR(result);
    const auto after = PayloadAndTime();
    const double megabytes = (after.payload - before.payload) / 1e6;
    const double time = after.time - before.time;
    fmt::print(
        "{:<10} {:8.1f} MB in {:7.3f} s ({:.3f} s of it flush): {:8.2f} MB/s, {:.2f} CPU s per "
        "GB\n",
        name, megabytes, time, after.time - *std::max_element(told.begin(), told.end()),
        megabytes / time, (after.cpu - before.cpu) / megabytes * 1e3);
    return absl::OkStatus();
  }

  absl::Status Bulk(uint64_t pages) {
    constexpr uint64_t kSlice = 16384;
    return Round("bulk", [&](PageChannel& channel, size_t index) -> absl::Status {
      const uint64_t most =
          std::min<uint64_t>(1024, channel.capabilities().largest_write.value() / kPageBytes);
      for (uint64_t slice = index * kSlice; slice < pages; slice += kSlice * channels_.size()) {
        const uint64_t end = std::min(pages, slice + kSlice);
        for (uint64_t page = slice; page < end; page += most) {
          const uint64_t count = std::min(most, end - page);
          const PageWrite write{0, page * kPageBytes, memory_.page(page), count * kPageBytes};
          RETURN_IF_ERROR(channel.Write({&write, 1}));
        }
      }
      return absl::OkStatus();
    });
  }

  absl::Status Scattered(const char* name, const std::vector<uint64_t>& pages) {
    return Round(name, [&](PageChannel& channel, size_t index) -> absl::Status {
      std::vector<PageWrite> writes;
      std::vector<PageZero> zeros;
      for (size_t i = index; i < pages.size(); i += channels_.size()) {
        const uint64_t offset = pages[i] * kPageBytes;
        if (pages[i] % 8 == 0) {
          zeros.push_back({0, offset, kPageBytes});
        } else {
          writes.push_back({0, offset, memory_.page(pages[i]), kPageBytes});
        }
        if (writes.size() == 64) {
          RETURN_IF_ERROR(channel.Write(writes));
          RETURN_IF_ERROR(channel.WriteZeros(zeros));
          writes.clear();
          zeros.clear();
        }
      }
      RETURN_IF_ERROR(channel.Write(writes));
      return channel.WriteZeros(zeros);
    });
  }

  // Times that a channel's send queue was full.
  [[nodiscard]] uint64_t full() const {
    uint64_t times = 0;
    for (const auto& channel : channels_) times += channel->stats().full;
    return times;
  }

 private:
  struct Sample {
    double payload;
    double time;
    double cpu;
  };
  Sample PayloadAndTime() const {
    uint64_t payload = 0;
    for (const auto& channel : channels_) payload += channel->stats().payload.value();
    return {static_cast<double>(payload),
            std::chrono::duration<double>(Clock::now().time_since_epoch()).count(), CpuSeconds()};
  }

  TestMemory& memory_;
  std::vector<std::unique_ptr<PageChannel>> channels_;
};

absl::Status Send(const Arguments& arguments) {
  TestMemory memory(arguments.bytes, arguments.mode != "unregistered");
  const uint64_t pages = arguments.bytes / kPageBytes;
  const uint64_t touched = pages * 3 / 4;
  std::mt19937_64 random(1);
  const auto fill = [&](uint64_t page) {
    auto* words = reinterpret_cast<uint64_t*>(memory.page(page));
    for (size_t i = 0; i < kPageBytes / 8; ++i) words[i] = random();
  };
  for (uint64_t page = 0; page < touched; ++page) fill(page);

  ChannelOffer offer;
  std::ifstream file(arguments.offer_file);
  file >> offer.address >> offer.port;
  for (std::string token; file >> token;) offer.tokens.push_back(FromHex(token));

  rdma::RdmaConnector connector(
      {.pin_budget = arguments.budget, .on_demand = arguments.mode == "on-demand"});
  ASSIGN_OR_RETURN(const auto tcp, TcpConnector::Create({}));
  ChannelConnector& chosen =
      arguments.mode == "tcp" ? *tcp : static_cast<ChannelConnector&>(connector);
  offer.transport = chosen.transport();
  ASSIGN_OR_RETURN(auto channels, chosen.Connect(offer, {&memory.region(), 1}, In(seconds(30))));
  for (const auto& channel : channels) fmt::print("channel: {}\n", channel->capabilities().path);
  Sender sender(memory, std::move(channels));
  if (arguments.mode == "until-failure") {
    for (;;) {
      const absl::Status status = sender.Bulk(touched);
      if (status.ok()) continue;
      fmt::print("failed as it should: {}\n", std::string(status.message()));
      return absl::IsUnavailable(status) ? absl::OkStatus() : status;
    }
  }
  RETURN_IF_ERROR(sender.Bulk(touched));
  for (int round = 0; round < 6; ++round) {
    const bool with_zeros = round < 3;
    std::vector<uint64_t> dirty;
    for (uint64_t page = random() % 40; page < touched; page += 1 + random() % 40) {
      if (!with_zeros && page % 8 == 0) continue;
      dirty.push_back(page);
      if (page % 8 == 0) {
        std::memset(memory.page(page), 0, kPageBytes);
      } else {
        fill(page);
      }
    }
    RETURN_IF_ERROR(sender.Scattered(with_zeros ? "scattered" : "no zeros", dirty));
  }
  fmt::print("full send queue: {} times\n", sender.full());
  fmt::print("pinned at most {} MiB, {} MiB populated\n", connector.most_pinned().value() >> 20,
             memory.populated() >> 20);
  if (arguments.budget.value() != 0 && connector.most_pinned() > arguments.budget) {
    return absl::InternalError("pinned more than the budget");
  }
  if (memory.populated() > touched * kPageBytes + MiB(4).value()) {
    return absl::InternalError("holes were populated");
  }
  std::string digests;
  for (uint64_t page = 0; page < pages; ++page) {
    const uint64_t digest = memory.Digest(page);
    digests.append(reinterpret_cast<const char*>(&digest), sizeof digest);
  }
  WriteFile(arguments.done_file, digests);
  return absl::OkStatus();
}

int Check() {
  const rdma::RdmaReport report = rdma::ProbeRdma();
  for (const rdma::RdmaDevice& device : report.devices) {
    fmt::print("{}: NUMA node {}, on-demand paging {}, {} registrations, {} requests a queue\n",
               device.name, device.numa_node ? std::to_string(*device.numa_node) : "unknown",
               device.on_demand_paging ? "yes" : "no", device.limits.most_registrations,
               device.most_requests);
    for (const rdma::RdmaPort& port : device.ports) {
      fmt::print("  port {}: {}, {}, {:.0f} Gbit/s, MTU {}, messages up to {} KiB\n", port.number,
                 port.state, port.link_layer, port.gigabits_per_second, port.mtu,
                 port.largest_message >> 10);
      for (const rdma::RdmaGid& gid : port.gids) {
        fmt::print("    GID {} {} {} {}\n", gid.index, gid.address, gid.kind, gid.interface);
      }
    }
  }
  for (const rdma::RdmaProblem& problem : report.problems) {
    fmt::print("problem: {}: {}\n", problem.what, problem.fix);
  }
  return report.usable ? 0 : 1;
}

int Main(int count, char** values) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (count == 2 && std::string(values[1]) == "check") return Check();
  if (count < 8) {
    fmt::print(
        stderr,
        "usage: rdma_probe send|receive OFFER DONE MIB CHANNELS BUDGET_MIB ADDRESS [MODE]\n");
    return 2;
  }
  Arguments arguments;
  arguments.offer_file = values[2];
  arguments.done_file = values[3];
  arguments.bytes = MiB(std::stoull(values[4])).value();
  arguments.channels = std::stoull(values[5]);
  arguments.budget = MiB(std::stoull(values[6]));
  arguments.address = values[7];
  if (count > 8) arguments.mode = values[8];
  const bool send = std::string(values[1]) == "send";
  const absl::Status status = send ? Send(arguments) : Receive(arguments);
  if (!status.ok()) fmt::print("error: {}\n", std::string(status.message()));
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace ramferry

int main(int argc, char** argv) {
  return ramferry::Main(argc, argv);
}
