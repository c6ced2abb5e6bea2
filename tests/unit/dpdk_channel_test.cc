// Page channels between a DPDK port and the kernel's TCP, either way, plain and encrypted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "tests/unit/dpdk_site.h"
#include "tests/unit/tcp_test_certificates.h"
#include "tests/unit/tcp_test_guest.h"
#include "transport/dpdk/dpdk_transport.h"
#include "transport/tcp/tcp_connector.h"
#include "transport/tcp/tcp_listener.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

struct Case {
  uint32_t mtu;
  bool encrypted;
  bool from_dpdk;  // else to it
};

class DpdkChannel : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    static auto* const site = new DpdkSite(GetParam().mtu);
    site_ = site;
    ASSERT_FALSE(site_->failed()) << site_->why_not();
    if (!site_->why_not().empty()) GTEST_SKIP() << site_->why_not();
    if (site_->mtu() != GetParam().mtu) GTEST_SKIP() << "in this process the port has another MTU";
  }

  static TcpOptions Options() {
    return GetParam().encrypted ? TestCertificates::Shared().Options("one") : TcpOptions{};
  }

  // Channels into `regions`, from DPDK to the kernel or the other way.
  void Open(const std::vector<MappedRegion>& regions, size_t channels) {
    if (GetParam().from_dpdk) {
      auto listener = TcpListener::Create(DpdkSite::kKernelAddress, 0, Options());
      ASSERT_TRUE(listener.ok()) << listener.status();
      listener_ = *std::move(listener);
    } else {
      auto listener = dpdk::DpdkListener::Create(site_->poller(), 0, Options());
      ASSERT_TRUE(listener.ok()) << listener.status();
      listener_ = *std::move(listener);
    }
    auto receiver = listener_->Expect(regions, channels);
    ASSERT_TRUE(receiver.ok()) << receiver.status();
    receiver_ = *std::move(receiver);
    std::unique_ptr<ChannelConnector> connector;
    if (GetParam().from_dpdk) {
      connector = *dpdk::DpdkConnector::Create(site_->poller(), Options());
    } else {
      connector = *TcpConnector::Create(Options());
    }
    auto connected = connector->Connect(receiver_->offer(), {}, In(60s));
    ASSERT_TRUE(connected.ok()) << connected.status();
    channels_ = *std::move(connected);
  }

  const DpdkSite* site_ = nullptr;
  std::unique_ptr<ChannelListener> listener_;
  std::unique_ptr<ChannelReceiver> receiver_;
  std::vector<std::unique_ptr<PageChannel>> channels_;
};

INSTANTIATE_TEST_SUITE_P(Ways, DpdkChannel,
                         ::testing::Values(Case{1500, false, true}, Case{1500, true, true},
                                           Case{9000, false, true}, Case{1500, false, false},
                                           Case{1500, true, false}, Case{9000, false, false}),
                         [](const auto& way) {
                           return std::string(way.param.from_dpdk ? "from_dpdk" : "to_dpdk") +
                                  "_mtu" + std::to_string(way.param.mtu) +
                                  (way.param.encrypted ? "_encrypted" : "");
                         });

TEST_P(DpdkChannel, random_batches_land_bit_for_bit) {
  constexpr uint64_t kPages = 2048;
  TestMemory source(TestMemory::Kind::kFile, kPages);
  source.FillRandomly(1);
  TestMemory file(TestMemory::Kind::kFile, kPages);
  TestMemory anonymous(TestMemory::Kind::kAnonymous, kPages);
  const std::vector<TestMemory*> landed{&file, &anonymous};
  std::vector<std::vector<std::byte>> expected(2, std::vector<std::byte>(source.bytes()));
  ASSERT_NO_FATAL_FAILURE(Open({file.region("file"), anonymous.region("anonymous")}, 1));
  PageChannel& channel = *channels_[0];
  EXPECT_EQ(channel.capabilities().encrypted, GetParam().encrypted);

  std::mt19937_64 random(2);
  uint64_t payload = 0;
  for (int round = 0; round < 6; ++round) {
    std::vector<PageWrite> writes;
    std::vector<PageZero> zeros;
    for (uint64_t i = random() % 700; i > 0; --i) {
      const RegionId region = random() % 2;
      const uint64_t count = random() % 8 == 0 ? 1 + random() % 256 : 1;
      const uint64_t to = random() % (kPages - count + 1);
      const uint64_t from = random() % (kPages - count + 1);
      writes.push_back({region, to * kPageBytes, source.page(from), count * kPageBytes});
      std::memcpy(expected[region].data() + to * kPageBytes, source.page(from), count * kPageBytes);
      payload += count * kPageBytes;
    }
    for (uint64_t i = random() % 20; i > 0; --i) {
      const RegionId region = random() % 2;
      const uint64_t count = 1 + random() % 64;
      const uint64_t to = random() % (kPages - count + 1);
      zeros.push_back({region, to * kPageBytes, count * kPageBytes});
      std::memset(expected[region].data() + to * kPageBytes, 0, count * kPageBytes);
    }
    ASSERT_TRUE(channel.Write(writes).ok());
    ASSERT_TRUE(channel.WriteZeros(zeros).ok());
    if (round % 3 != 2) continue;
    const absl::Status flushed = channel.Flush(In(60s));
    ASSERT_TRUE(flushed.ok()) << flushed;
    for (size_t i = 0; i < landed.size(); ++i) {
      ASSERT_EQ(std::memcmp(landed[i]->data(), expected[i].data(), source.bytes()), 0) << round;
    }
  }
  EXPECT_EQ(channel.stats().payload.value(), payload);
  EXPECT_EQ(receiver_->stats().payload.value(), payload);
  EXPECT_TRUE(receiver_->status().ok()) << receiver_->status();
}

TEST_P(DpdkChannel, channels_side_by_side_land_each_their_pages) {
  constexpr uint64_t kPages = 4096;
  TestMemory source(TestMemory::Kind::kFile, kPages);
  source.FillRandomly(3);
  TestMemory destination(TestMemory::Kind::kFile, kPages);
  ASSERT_NO_FATAL_FAILURE(Open({destination.region()}, 4));
  std::vector<std::thread> workers;
  for (size_t worker = 0; worker < 4; ++worker) {
    workers.emplace_back([&, worker] {
      for (uint64_t page = worker * 16; page < kPages; page += 64) {
        const PageWrite write{0, page * kPageBytes, source.page(page), 16 * kPageBytes};
        EXPECT_TRUE(channels_[worker]->Write({&write, 1}).ok());
      }
      EXPECT_TRUE(channels_[worker]->Flush(In(60s)).ok());
    });
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(std::memcmp(destination.data(), source.data(), source.bytes()), 0);
  EXPECT_EQ(receiver_->stats().payload.value(), source.bytes());
}

}  // namespace
}  // namespace ramferry
