// The receiver's judgement of frames, without sockets.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "base/status.h"
#include "transport/tcp/frame_parser.h"

namespace ramferry::tcp {
namespace {

constexpr uint64_t kRegionBytes = 64 * kPageBytes;

// Applies frames to an image.
class Image final : public FrameSink {
 public:
  absl::Status OnWrite(RegionId region, uint64_t offset,
                       std::span<const std::byte> bytes) override {
    EXPECT_EQ(region, 0);
    EXPECT_EQ((offset | bytes.size()) % kPageBytes, 0U);
    std::memcpy(&memory[offset], bytes.data(), bytes.size());
    return absl::OkStatus();
  }
  absl::Status OnZero(RegionId, uint64_t offset, uint64_t length) override {
    std::memset(&memory[offset], 0, length);
    return absl::OkStatus();
  }
  absl::Status OnFlush(uint64_t sequence) override {
    flushes.push_back(sequence);
    return absl::OkStatus();
  }
  std::vector<std::byte> memory = std::vector<std::byte>(kRegionBytes);
  std::vector<uint64_t> flushes;
};

std::vector<MappedRegion> Regions() {
  return {{.description = {.size = ByteCount(kRegionBytes)}}};
}

void Append(std::vector<std::byte>& stream, const FrameHeader& header) {
  const HeaderBytes bytes = Encoded(header);
  stream.insert(stream.end(), bytes.begin(), bytes.end());
}

absl::Status Feed(const FrameHeader& header) {
  Image image;
  FrameParser parser(Regions(), image);
  return parser.Consume(Encoded(header)).status();
}

TEST(TcpFrames, header_survives_the_wire_in_the_documented_layout) {
  const HeaderBytes bytes = Encoded({.type = FrameType::kZero,
                                     .region = 0x0102,
                                     .code = 0x03040506,
                                     .offset = 0x0708090a0b0c0d0e,
                                     .length = 0x1112131415161718});
  const std::vector<uint8_t> expected{2,    0,    0x02, 0x01, 0x06, 0x05, 0x04, 0x03,
                                      0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 0x08, 0x07,
                                      0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11};
  EXPECT_EQ(std::memcmp(bytes.data(), expected.data(), bytes.size()), 0);
  const FrameHeader header = Decode(bytes.data());
  EXPECT_EQ(header.type, FrameType::kZero);
  EXPECT_EQ(header.region, 0x0102);
  EXPECT_EQ(header.code, 0x03040506U);
  EXPECT_EQ(header.offset, 0x0708090a0b0c0d0eU);
  EXPECT_EQ(header.length, 0x1112131415161718U);
}

TEST(TcpFrames, however_the_stream_is_cut_the_image_is_the_same) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::byte> stream;
    std::vector<std::byte> expected(kRegionBytes);
    for (int frame = 0; frame < 20; ++frame) {
      const uint64_t count = 1 + random() % 8;
      const uint64_t offset = random() % (64 - count + 1) * kPageBytes;
      if (random() % 4 == 0) {
        Append(stream, {.type = FrameType::kZero, .offset = offset, .length = count * kPageBytes});
        std::memset(&expected[offset], 0, count * kPageBytes);
        continue;
      }
      Append(stream, {.type = FrameType::kWrite, .offset = offset, .length = count * kPageBytes});
      for (uint64_t i = 0; i < count * kPageBytes; ++i) {
        stream.push_back(static_cast<std::byte>(random()));
        expected[offset + i] = stream.back();
      }
    }
    Append(stream, {.type = FrameType::kFlush, .offset = 7});
    Append(stream, {.type = FrameType::kClose});

    Image image;
    FrameParser parser(Regions(), image);
    std::vector<std::byte> held;
    for (size_t at = 0; at < stream.size();) {
      const size_t take = std::min<size_t>(1 + random() % 10'000, stream.size() - at);
      held.insert(held.end(), &stream[at], &stream[at] + take);
      at += take;
      const auto used = parser.Consume(held);
      ASSERT_TRUE(used.ok()) << used.status();
      held.erase(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(*used));
      ASSERT_LT(held.size(), kPageBytes);
    }
    EXPECT_EQ(image.memory, expected);
    EXPECT_EQ(image.flushes, std::vector<uint64_t>{7});
    EXPECT_TRUE(parser.closed());
  }
}

TEST(TcpFrames, frames_that_lie_are_refused) {
  constexpr uint64_t kMost = ~uint64_t{0} - (kPageBytes - 1);
  for (const FrameType type : {FrameType::kWrite, FrameType::kZero}) {
    const std::vector<FrameHeader> lies{
        {.type = type, .region = 1, .length = kPageBytes},
        {.type = type, .region = 65535, .length = kPageBytes},
        {.type = type, .offset = kRegionBytes, .length = kPageBytes},
        {.type = type, .offset = kPageBytes, .length = kRegionBytes},
        {.type = type, .offset = kPageBytes, .length = kMost},
        {.type = type, .offset = kMost, .length = kPageBytes},
        {.type = type, .offset = kMost, .length = 2 * kPageBytes},
        {.type = type, .offset = 1, .length = kPageBytes},
        {.type = type, .length = kPageBytes + 1},
        {.type = type, .length = 0},
        {.type = type, .code = 1, .length = kPageBytes},
    };
    for (const FrameHeader& lie : lies) {
      EXPECT_TRUE(absl::IsInvalidArgument(Feed(lie)))
          << lie.region << " " << lie.offset << " " << lie.length;
    }
    EXPECT_TRUE(
        Feed({.type = type, .offset = kRegionBytes - kPageBytes, .length = kPageBytes}).ok());
  }
}

TEST(TcpFrames, write_longer_than_the_largest_is_refused) {
  Image image;
  const std::vector<MappedRegion> large{{.description = {.size = GiB(1)}}};
  FrameParser parser(large, image);
  EXPECT_TRUE(absl::IsInvalidArgument(
      parser.Consume(Encoded({.type = FrameType::kWrite, .length = kLargestWrite + kPageBytes}))
          .status()));
}

TEST(TcpFrames, frames_only_a_destination_sends_and_unknown_ones_are_refused) {
  for (const uint16_t type : {0, 4, 6, 7, 255, 65535}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Feed({.type = static_cast<FrameType>(type)}))) << type;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(Feed({.type = FrameType::kFlush, .length = 1})));
  EXPECT_TRUE(absl::IsInvalidArgument(Feed({.type = FrameType::kClose, .offset = 1})));
}

TEST(TcpFrames, nothing_may_follow_a_close) {
  std::vector<std::byte> stream;
  Append(stream, {.type = FrameType::kClose});
  stream.push_back(std::byte{0});
  Image image;
  FrameParser parser(Regions(), image);
  EXPECT_TRUE(absl::IsInvalidArgument(parser.Consume(stream).status()));
}

}  // namespace
}  // namespace ramferry::tcp
