// What a page channel over DPDK makes of a network that loses, doubles and disorders packets, of a
// cable that is pulled, and of a peer that resets or refuses.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/unit/dpdk_site.h"
#include "tests/unit/faulty_wire.h"
#include "tests/unit/tcp_test_guest.h"
#include "transport/dpdk/dpdk_transport.h"
#include "transport/dpdk/stack.h"
#include "transport/tcp/tcp_connector.h"
#include "transport/tcp/tcp_listener.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class DpdkFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    static auto* const site = [] {
      dpdk::DpdkOptions options;
      options.wrap = [](std::unique_ptr<dpdk::Wire> wire) -> std::unique_ptr<dpdk::Wire> {
        return std::make_unique<FaultyWire>(std::move(wire), faults_);
      };
      return new DpdkSite(1500, options);
    }();
    site_ = site;
    ASSERT_FALSE(site_->failed()) << site_->why_not();
    if (!site_->why_not().empty()) GTEST_SKIP() << site_->why_not();
  }

  void ToKernel(const TestMemory& memory, const TcpOptions& options = {}) {
    listener_ = *TcpListener::Create(DpdkSite::kKernelAddress, 0, options);
    receiver_ = *listener_->Expect(std::vector<MappedRegion>{memory.region()}, 1);
    Connect(**dpdk::DpdkConnector::Create(site_->poller(), options));
  }
  void FromKernel(const TestMemory& memory, const TcpOptions& options = {}) {
    listener_ = *dpdk::DpdkListener::Create(site_->poller(), 0, options);
    receiver_ = *listener_->Expect(std::vector<MappedRegion>{memory.region()}, 1);
    Connect(**TcpConnector::Create(options));
  }
  void Connect(ChannelConnector& connector) {
    auto channels = connector.Connect(receiver_->offer(), {}, In(60s));
    ASSERT_TRUE(channels.ok()) << channels.status();
    channel_ = std::move((*channels)[0]);
  }

  void ExpectAllLands(const TestMemory& source, const TestMemory& destination) {
    faults_.lose = 0.01;
    faults_.twice = 0.01;
    faults_.late = 0.02;
    for (uint64_t page = 0; page < source.bytes() / kPageBytes; page += 16) {
      const PageWrite write{0, page * kPageBytes, source.page(page), 16 * kPageBytes};
      const absl::Status written = channel_->Write({&write, 1});
      ASSERT_TRUE(written.ok()) << written;
    }
    const absl::Status flushed = channel_->Flush(In(100s));
    ASSERT_TRUE(flushed.ok()) << flushed;
    EXPECT_EQ(std::memcmp(destination.data(), source.data(), source.bytes()), 0);
    EXPECT_GT(faults_.done.load(), 10);
  }

  static Faults faults_;
  const DpdkSite* site_ = nullptr;
  std::unique_ptr<ChannelListener> listener_;
  std::unique_ptr<ChannelReceiver> receiver_;
  std::unique_ptr<PageChannel> channel_;
};
Faults DpdkFaults::faults_;

TEST_F(DpdkFaults, pages_to_the_kernel_survive_loss_doubling_and_disorder) {
  TestMemory source(TestMemory::Kind::kFile, 512);
  source.FillRandomly(1);
  TestMemory destination(TestMemory::Kind::kFile, 512);
  ASSERT_NO_FATAL_FAILURE(ToKernel(destination));
  ExpectAllLands(source, destination);
}

TEST_F(DpdkFaults, pages_from_the_kernel_survive_loss_doubling_and_disorder) {
  TestMemory source(TestMemory::Kind::kFile, 512);
  source.FillRandomly(2);
  TestMemory destination(TestMemory::Kind::kFile, 512);
  ASSERT_NO_FATAL_FAILURE(FromKernel(destination));
  ExpectAllLands(source, destination);
}

TEST_F(DpdkFaults, pulled_cable_fails_the_channel_with_the_reason) {
  TestMemory destination(TestMemory::Kind::kFile, 16);
  TcpOptions options;
  options.stall_timeout = 2s;
  ASSERT_NO_FATAL_FAILURE(ToKernel(destination, options));
  ASSERT_TRUE(channel_->Flush(In(60s)).ok());
  faults_.cut = true;
  const absl::Status status = channel_->Flush(In(60s));
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the other host does not answer"));
}

TEST_F(DpdkFaults, silent_source_is_noticed_by_the_port) {
  TestMemory destination(TestMemory::Kind::kFile, 16);
  TcpOptions options;
  options.stall_timeout = 2s;
  ASSERT_NO_FATAL_FAILURE(FromKernel(destination, options));
  ASSERT_TRUE(channel_->Flush(In(60s)).ok());
  faults_.cut = true;
  const Deadline deadline = In(60s);
  while (receiver_->status().ok() && Clock::now() < deadline) std::this_thread::sleep_for(10ms);
  EXPECT_TRUE(absl::IsUnavailable(receiver_->status())) << receiver_->status();
}

TEST_F(DpdkFaults, abort_ends_a_flush_that_waits) {
  TestMemory destination(TestMemory::Kind::kFile, 16);
  ASSERT_NO_FATAL_FAILURE(ToKernel(destination));
  faults_.cut = true;
  std::thread aborting([this] { channel_->Abort(); });
  const absl::Status status = channel_->Flush(In(60s));
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  aborting.join();
}

TEST_F(DpdkFaults, destination_that_stops_says_so) {
  TestMemory destination(TestMemory::Kind::kFile, 16);
  ASSERT_NO_FATAL_FAILURE(ToKernel(destination));
  ASSERT_TRUE(channel_->Flush(In(60s)).ok());
  receiver_->Stop();
  const absl::Status status = channel_->Flush(In(60s));
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

TEST_F(DpdkFaults, port_where_nobody_listens_is_refused_at_once) {
  const auto connection = site_->poller()->Connect(DpdkSite::kKernelAddress, 1, 5s, -1, In(60s));
  EXPECT_TRUE(absl::IsUnavailable(connection.status())) << connection.status();
  EXPECT_THAT(std::string(connection.status().message()), HasSubstr("refused"));
}

TEST_F(DpdkFaults, address_that_nobody_has_is_named_with_what_to_look_at) {
  const auto connection = site_->poller()->Connect("10.99.0.77", 4711, 5s, -1, In(1s));
  EXPECT_TRUE(absl::IsDeadlineExceeded(connection.status())) << connection.status();
  EXPECT_THAT(std::string(connection.status().message()), HasSubstr("nobody there answers ARP"));
}

// Sum of 16-bit words, as the internet's checksum wants it (RFC 1071).
uint32_t Sum(const void* bytes, size_t size) {
  uint32_t sum = 0;
  for (size_t i = 0; i < size; i += 2) {
    uint16_t word = 0;
    std::memcpy(&word, static_cast<const char*>(bytes) + i, 2);
    sum += word;
  }
  return sum;
}

// Begins connections from addresses that nobody has.
void FloodWithSyns(uint16_t port, uint32_t count) {
  const UniqueFd raw(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
  ASSERT_TRUE(raw.valid());
  sockaddr_in to{};
  to.sin_family = AF_INET;
  ::inet_pton(AF_INET, DpdkSite::kPortAddress, &to.sin_addr);
  for (uint32_t i = 0; i < count; ++i) {
    struct {
      iphdr ip;
      tcphdr tcp;
    } packet{};
    packet.ip.version = 4;
    packet.ip.ihl = 5;
    packet.ip.ttl = 64;
    packet.ip.protocol = IPPROTO_TCP;
    packet.ip.tot_len = htons(sizeof packet);
    packet.ip.saddr = htonl(0x0a630000U + 100 + i % 100);  // 10.99.0.100 and on
    packet.ip.daddr = to.sin_addr.s_addr;
    packet.tcp.source = htons(static_cast<uint16_t>(1024 + i));
    packet.tcp.dest = htons(port);
    packet.tcp.seq = i;
    packet.tcp.doff = 5;
    packet.tcp.syn = 1;
    packet.tcp.window = 0xffff;
    uint32_t sum = Sum(&packet.tcp, sizeof packet.tcp) + Sum(&packet.ip.saddr, 8) +
                   htons(IPPROTO_TCP) + htons(sizeof packet.tcp);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    packet.tcp.check = static_cast<uint16_t>(~sum);
    ASSERT_EQ(
        ::sendto(raw.get(), &packet, sizeof packet, 0, reinterpret_cast<sockaddr*>(&to), sizeof to),
        static_cast<ssize_t>(sizeof packet))
        << std::strerror(errno);
    if (i % 64 == 63) std::this_thread::sleep_for(5ms);  // the port's ring is not what is tested
  }
}

TEST_F(DpdkFaults, connections_that_are_begun_and_never_confirmed_are_few_and_shut_nobody_out) {
  TestMemory destination(TestMemory::Kind::kFile, 16);
  listener_ = *dpdk::DpdkListener::Create(site_->poller(), 0, TcpOptions{});
  receiver_ = *listener_->Expect(std::vector<MappedRegion>{destination.region()}, 1);
  const size_t most = dpdk::Stack::kMostHalfOpen;
  ASSERT_NO_FATAL_FAILURE(FloodWithSyns(receiver_->offer().port, 1000));
  const Deadline deadline = In(60s);
  while (site_->poller()->HalfOpen() < most && Clock::now() < deadline) {
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_EQ(site_->poller()->HalfOpen(), most);
  ASSERT_NO_FATAL_FAILURE(Connect(**TcpConnector::Create(TcpOptions{})));
  EXPECT_TRUE(channel_->Flush(In(60s)).ok());
}

}  // namespace
}  // namespace ramferry
