// What a page channel over TCP promises, on real sockets, plain and encrypted.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "base/status.h"
#include "tests/unit/tcp_test_certificates.h"
#include "tests/unit/tcp_test_guest.h"
#include "transport/tcp/tcp_connector.h"
#include "transport/tcp/tcp_listener.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// A listener, a receiver for `regions`, and connected channels.
struct Path {
  std::unique_ptr<TcpListener> listener;
  std::unique_ptr<ChannelReceiver> receiver;
  std::vector<std::unique_ptr<PageChannel>> channels;
};

Path Open(const std::vector<MappedRegion>& regions, const TcpOptions& options, size_t channels = 1,
          const std::vector<MappedRegion>& source = {}) {
  Path path;
  auto listener = TcpListener::Create("127.0.0.1", 0, options);
  EXPECT_TRUE(listener.ok()) << listener.status();
  path.listener = *std::move(listener);
  auto receiver = path.listener->Expect(regions, channels);
  EXPECT_TRUE(receiver.ok()) << receiver.status();
  path.receiver = *std::move(receiver);
  auto connector = TcpConnector::Create(options);
  EXPECT_TRUE(connector.ok()) << connector.status();
  auto connected = (*connector)->Connect(path.receiver->offer(), source, In(30s));
  EXPECT_TRUE(connected.ok()) << connected.status();
  path.channels = *std::move(connected);
  return path;
}

// The receiver learns of the end of a channel in its own time.
absl::Status EventualError(const ChannelReceiver& receiver) {
  const Deadline deadline = In(30s);
  while (receiver.status().ok() && Clock::now() < deadline) std::this_thread::sleep_for(1ms);
  return receiver.status();
}

class TcpChannel : public ::testing::TestWithParam<bool> {
 protected:
  static TcpOptions Options() {
    return GetParam() ? TestCertificates::Shared().Options("one") : TcpOptions{};
  }
};

INSTANTIATE_TEST_SUITE_P(Streams, TcpChannel, ::testing::Bool(),
                         [](const auto& stream) { return stream.param ? "encrypted" : "plain"; });

TEST_P(TcpChannel, random_batches_land_bit_for_bit) {
  constexpr uint64_t kPages = 2048;
  TestMemory source(TestMemory::Kind::kFile, kPages);
  source.FillRandomly(1);
  TestMemory file(TestMemory::Kind::kFile, kPages);
  TestMemory anonymous(TestMemory::Kind::kAnonymous, kPages);
  const std::vector<TestMemory*> landed{&file, &anonymous};
  std::vector<std::vector<std::byte>> expected(2, std::vector<std::byte>(source.bytes()));
  Path path = Open({file.region("file"), anonymous.region("anonymous")}, Options(), 1);
  PageChannel& channel = *path.channels[0];
  EXPECT_EQ(channel.capabilities().encrypted, GetParam());

  std::mt19937_64 random(2);
  uint64_t payload = 0;
  for (int round = 0; round < 16; ++round) {
    std::vector<PageWrite> writes;
    std::vector<PageZero> zeros;
    for (uint64_t i = random() % 700; i > 0; --i) {  // also more than one system call takes
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
    if (round % 8 != 7) continue;
    ASSERT_TRUE(channel.Flush(In(30s)).ok());
    for (size_t i = 0; i < landed.size(); ++i) {
      ASSERT_EQ(std::memcmp(landed[i]->data(), expected[i].data(), source.bytes()), 0) << round;
    }
  }
  ASSERT_TRUE(channel.Flush(In(30s)).ok());
  EXPECT_EQ(channel.stats().payload.value(), payload);
  EXPECT_GT(channel.stats().wire, channel.stats().payload);
  EXPECT_TRUE(path.receiver->status().ok());
}

TEST_P(TcpChannel, long_and_short_writes_from_a_memory_file_land_bit_for_bit) {
  constexpr uint64_t kPages = 4096;
  TestMemory source(TestMemory::Kind::kFile, kPages);
  source.FillRandomly(4);
  TestMemory destination(TestMemory::Kind::kFile, kPages);
  Path path = Open({destination.region()}, Options(), 1, {source.region()});
  std::mt19937_64 random(5);
  std::vector<PageWrite> writes;
  for (uint64_t page = 0; page < kPages;) {
    const uint64_t longest = random() % 2 == 0 ? 4 : 256;
    const uint64_t count = std::min(1 + random() % longest, kPages - page);
    writes.push_back({0, page * kPageBytes, source.page(page), count * kPageBytes});
    page += count;
  }
  std::shuffle(writes.begin(), writes.end(), random);
  ASSERT_TRUE(path.channels[0]->Write(writes).ok());
  ASSERT_TRUE(path.channels[0]->Flush(In(30s)).ok());
  EXPECT_EQ(std::memcmp(destination.data(), source.data(), source.bytes()), 0);
  EXPECT_EQ(path.channels[0]->stats().payload.value(), source.bytes());
  EXPECT_TRUE(path.receiver->status().ok()) << path.receiver->status();
}

// Shown with a region whose mapping is not that of its file.
TEST_P(TcpChannel, only_long_writes_on_a_plain_stream_go_by_sendfile) {
  constexpr uint64_t kPages = 64;
  TestMemory mapping(TestMemory::Kind::kAnonymous, kPages);
  mapping.FillRandomly(6);
  TestMemory file(TestMemory::Kind::kFile, kPages);
  file.FillRandomly(7);
  TestMemory destination(TestMemory::Kind::kFile, kPages);
  MappedRegion region = file.region();
  region.address = mapping.data();
  Path path = Open({destination.region()}, Options(), 1, {region});
  const std::vector<PageWrite> writes{
      {0, 0, mapping.page(0), kPageBytes},
      {0, 32 * kPageBytes, mapping.page(32), 32 * kPageBytes},
  };
  ASSERT_TRUE(path.channels[0]->Write(writes).ok());
  ASSERT_TRUE(path.channels[0]->Flush(In(30s)).ok());
  EXPECT_EQ(std::memcmp(destination.page(0), mapping.page(0), kPageBytes), 0);
  const std::byte* expected = GetParam() ? mapping.page(32) : file.page(32);
  EXPECT_EQ(std::memcmp(destination.page(32), expected, 32 * kPageBytes), 0);
}

TEST_P(TcpChannel, channels_side_by_side_land_each_their_pages) {
  constexpr uint64_t kPages = 1024;
  TestMemory source(TestMemory::Kind::kFile, kPages);
  source.FillRandomly(3);
  TestMemory destination(TestMemory::Kind::kFile, kPages);
  Path path = Open({destination.region()}, Options(), 4);
  std::vector<std::thread> workers;
  for (size_t worker = 0; worker < 4; ++worker) {
    workers.emplace_back([&, worker] {
      for (uint64_t page = worker; page < kPages; page += 4) {
        const PageWrite write{0, page * kPageBytes, source.page(page), kPageBytes};
        EXPECT_TRUE(path.channels[worker]->Write({&write, 1}).ok());
      }
      EXPECT_TRUE(path.channels[worker]->Flush(In(30s)).ok());
    });
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(std::memcmp(destination.data(), source.data(), source.bytes()), 0);
  EXPECT_EQ(path.receiver->stats().payload.value(), source.bytes());
}

TEST_P(TcpChannel, zeros_give_the_memory_back) {
  TestMemory destination(TestMemory::Kind::kFile, 256);
  destination.FillRandomly(4);
  const uint64_t full = destination.file_blocks();
  Path path = Open({destination.region()}, Options());
  const PageZero zero{0, 0, destination.bytes() - kPageBytes};
  ASSERT_TRUE(path.channels[0]->WriteZeros({&zero, 1}).ok());
  ASSERT_TRUE(path.channels[0]->Flush(In(30s)).ok());
  EXPECT_LE(destination.file_blocks(), full / 128);
  const std::vector<std::byte> zeros(zero.length);
  EXPECT_EQ(std::memcmp(destination.data(), zeros.data(), zeros.size()), 0);
}

TEST_P(TcpChannel, flush_returns_only_when_the_pages_are_there) {
  TestMemory source(TestMemory::Kind::kFile, 512);
  source.FillRandomly(5);
  TestMemory destination(TestMemory::Kind::kFile, 512);
  Path path = Open({destination.region()}, Options());
  for (uint64_t first = 0; first < 512; first += 64) {
    const PageWrite write{0, first * kPageBytes, source.page(first), 64 * kPageBytes};
    ASSERT_TRUE(path.channels[0]->Write({&write, 1}).ok());
    ASSERT_TRUE(path.channels[0]->Flush(In(30s)).ok());
    ASSERT_EQ(std::memcmp(destination.page(first), source.page(first), write.length), 0);
  }
}

TEST_P(TcpChannel, a_write_outside_a_region_ends_the_channel_and_the_source_learns_why) {
  TestMemory source(TestMemory::Kind::kFile, 4);
  source.FillRandomly(6);
  // The region is the middle of a file: what adjoins it must stay zero.
  TestMemory around(TestMemory::Kind::kAnonymous, 12);
  MappedRegion middle = around.region();
  middle.address = around.page(4);
  middle.description.size = ByteCount(4 * kPageBytes);
  const std::vector<PageWrite> lies{
      {1, 0, source.data(), kPageBytes},                    // no such region
      {0, 4 * kPageBytes, source.data(), kPageBytes},       // behind the end
      {0, 3 * kPageBytes, source.data(), 2 * kPageBytes},   // across the end
      {0, ~uint64_t{0} - 4095, source.data(), kPageBytes},  // wraps around
      {0, 100, source.data(), kPageBytes},                  // not on a page
      {0, 0, source.data(), 100},                           // not a page
      {0, 0, source.data(), 0},                             // nothing
  };
  for (const PageWrite& lie : lies) {
    Path path = Open({middle}, Options());
    PageChannel& channel = *path.channels[0];
    channel.Write({&lie, 1}).IgnoreError();
    const absl::Status status = channel.Flush(In(30s));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("the source sent a WRITE"));
    EXPECT_EQ(channel.Write({}), status) << "a dead channel keeps its reason";
    EXPECT_TRUE(absl::IsInvalidArgument(EventualError(*path.receiver)));
    const std::vector<std::byte> untouched(around.bytes());
    EXPECT_EQ(std::memcmp(around.data(), untouched.data(), around.bytes()), 0);
  }
}

TEST_P(TcpChannel, zeros_outside_a_region_are_refused) {
  TestMemory destination(TestMemory::Kind::kFile, 4);
  destination.FillRandomly(7);
  const std::vector<std::byte> before(destination.data(), destination.data() + destination.bytes());
  for (const PageZero& lie : std::vector<PageZero>{{0, 0, 5 * kPageBytes},
                                                   {0, kPageBytes, ~uint64_t{0} - 4095},
                                                   {0, 0, 8},
                                                   {3, 0, kPageBytes}}) {
    Path path = Open({destination.region()}, Options());
    path.channels[0]->WriteZeros({&lie, 1}).IgnoreError();
    EXPECT_TRUE(absl::IsInvalidArgument(path.channels[0]->Flush(In(30s))));
    EXPECT_EQ(std::memcmp(destination.data(), before.data(), before.size()), 0);
  }
}

TEST_P(TcpChannel, a_channel_closed_on_purpose_is_no_error_and_one_that_breaks_is) {
  TestMemory destination(TestMemory::Kind::kFile, 4);
  Path path = Open({destination.region()}, Options(), 2);
  path.channels.erase(path.channels.begin());
  ASSERT_TRUE(path.channels[0]->Flush(In(30s)).ok());
  EXPECT_TRUE(path.receiver->status().ok());
  path.channels[0]->Abort();
  EXPECT_TRUE(absl::IsUnavailable(EventualError(*path.receiver)));
}

TEST_P(TcpChannel, stop_in_the_middle_of_a_write_ends_both_sides_and_touches_nothing_after) {
  TestMemory source(TestMemory::Kind::kFile, 1024);
  source.FillRandomly(8);
  TestMemory destination(TestMemory::Kind::kFile, 1024);
  Path path = Open({destination.region()}, Options());
  std::thread worker([&] {
    absl::Status status;
    while (status.ok()) {
      std::vector<PageWrite> writes;
      for (uint64_t first = 0; first < 1024; first += 256) {
        writes.push_back({0, first * kPageBytes, source.page(first), 256 * kPageBytes});
      }
      status = path.channels[0]->Write(writes);
    }
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  });
  while (path.receiver->stats().payload.value() < 4 * source.bytes()) std::this_thread::yield();
  path.receiver->Stop();
  std::memset(destination.data(), 0, destination.bytes());
  worker.join();
  path.receiver->Stop();
  const std::vector<std::byte> zeros(destination.bytes());
  EXPECT_EQ(std::memcmp(destination.data(), zeros.data(), zeros.size()), 0);
  EXPECT_TRUE(path.receiver->status().ok()) << "stopped by its owner";
}

TEST_P(TcpChannel, destination_without_memory_says_so) {
  TestMemory source(TestMemory::Kind::kFile, 4);
  TestMemory destination(TestMemory::Kind::kFile, 4);
  MappedRegion region = destination.region();
  const UniqueFd full(::open("/dev/full", O_RDWR | O_CLOEXEC));
  region.fd = full.get();
  Path path = Open({region}, Options());
  const PageWrite write{0, 0, source.data(), kPageBytes};
  path.channels[0]->Write({&write, 1}).IgnoreError();
  const absl::Status status = path.channels[0]->Flush(In(30s));
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

}  // namespace
}  // namespace ramferry
