// The arithmetic of frames: checksums that stand in for lwIP's, and segment sizes in handshakes.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "transport/dpdk/checksum.h"
#include "transport/dpdk/host_facts.h"
#include "transport/dpdk/syn_mss.h"

extern "C" uint16_t inet_chksum(const void* data, uint16_t length);  // lwIP's

namespace ramferry::dpdk {
namespace {

// RFC 1071, word by word.
uint16_t Plainly(const std::byte* bytes, size_t length) {
  uint32_t sum = 0;
  for (size_t i = 0; i + 1 < length; i += 2) {
    uint16_t word;
    std::memcpy(&word, bytes + i, sizeof word);
    sum += word;
  }
  if (length % 2 != 0) sum += std::to_integer<uint32_t>(bytes[length - 1]);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

TEST(DpdkChecksum, equals_the_plain_sum_for_every_length_and_alignment) {
  std::vector<std::byte> bytes(9300);
  std::mt19937 random(1);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  for (size_t length = 0; length < 300; ++length) {
    for (size_t at = 0; at < 8; ++at) {
      ASSERT_EQ(InternetSum(&bytes[at], length), Plainly(&bytes[at], length)) << length << at;
    }
  }
  EXPECT_EQ(InternetSum(bytes.data(), 9000), Plainly(bytes.data(), 9000));
}

TEST(DpdkChecksum, lwip_calls_ours) {
  const uint64_t before = InterposedCalls();
  const uint16_t words[] = {0x1234, 0x0001};
  EXPECT_EQ(inet_chksum(words, sizeof words), static_cast<uint16_t>(~0x1235));
  EXPECT_GT(InterposedCalls(), before);
}

// A SYN with options: MSS, or one byte of padding before it.
std::vector<std::byte> Syn(bool padded) {
  std::vector<uint8_t> frame(14 + 20 + 28);
  frame[12] = 0x08;
  uint8_t* const ip = &frame[14];
  ip[0] = 0x45;
  ip[3] = 48;
  ip[9] = 6;
  const uint8_t addresses[] = {192, 0, 2, 1, 192, 0, 2, 2};
  std::memcpy(ip + 12, addresses, sizeof addresses);
  uint8_t* const tcp = ip + 20;
  tcp[0] = 0x12, tcp[1] = 0x67;  // port 4711
  tcp[3] = 80;
  tcp[12] = 7 << 4;
  tcp[13] = 0x02;
  const uint8_t mss[] = {2, 4, 0x05, 0xb4};  // 1460
  std::memset(tcp + 20, 1, 8);
  std::memcpy(tcp + 20 + (padded ? 1 : 0), mss, sizeof mss);
  std::vector<std::byte> bytes(frame.size());
  std::memcpy(bytes.data(), frame.data(), frame.size());
  return bytes;
}

// Of the TCP header with its pseudo header; 0xffff when the checksum in it is right.
uint16_t TcpSum(const std::vector<std::byte>& frame) {
  std::vector<std::byte> all(frame.begin() + 26, frame.begin() + 34);
  all.insert(all.end(), {std::byte{0}, std::byte{6}, std::byte{0}, std::byte{28}});
  all.insert(all.end(), frame.begin() + 34, frame.end());
  return Plainly(all.data(), all.size());
}

TEST(DpdkSynMss, raised_size_has_the_right_checksum) {
  for (const bool padded : {false, true}) {
    std::vector<std::byte> frame = Syn(padded);
    const uint16_t checksum = static_cast<uint16_t>(~TcpSum(frame));
    std::memcpy(&frame[34 + 16], &checksum, sizeof checksum);
    ASSERT_EQ(TcpSum(frame), 0xffff);
    AnnounceMss(frame, 8960);
    EXPECT_EQ(TcpSum(frame), 0xffff);
    const auto syn = ReadSyn(frame);
    ASSERT_TRUE(syn.has_value());
    EXPECT_EQ(syn->mss, 8960);
    EXPECT_EQ(syn->source_port, 4711);
  }
}

TEST(DpdkSynMss, short_and_broken_frames_are_left_alone) {
  const std::vector<std::byte> whole = Syn(false);
  for (size_t length = 0; length < whole.size(); ++length) {
    std::vector<std::byte> part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_FALSE(ReadSyn(part).has_value()) << length;
    AnnounceMss(part, 8960);
  }
  std::vector<std::byte> endless = whole;
  endless[34 + 21] = std::byte{0};  // an option of length 0
  EXPECT_EQ(ReadSyn(endless)->mss, 0);
  std::vector<std::byte> data = whole;
  data[34 + 13] = std::byte{0x10};  // an ACK
  EXPECT_FALSE(ReadSyn(data).has_value());
}

TEST(DpdkDevice, kinds_are_told_apart) {
  EXPECT_EQ(KindOf("0000:81:00.0"), DeviceKind::kPci);
  EXPECT_EQ(KindOf("eth1"), DeviceKind::kInterface);
  EXPECT_EQ(KindOf("net_memif0,role=client"), DeviceKind::kVirtual);
}

TEST(DpdkDevice, what_is_missing_is_named_with_what_to_do) {
  const absl::Status interface = CheckDevice({.device = "no-such-dev"});
  EXPECT_NE(interface.message().find("no-such-dev does not exist; see `ip link`"),
            std::string::npos)
      << interface;
  const absl::Status pci = CheckDevice({.device = "0fff:81:00.0"});
  EXPECT_NE(pci.message().find("see `lspci -D`"), std::string::npos) << pci;
}

}  // namespace
}  // namespace ramferry::dpdk
