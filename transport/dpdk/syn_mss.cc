#include "transport/dpdk/syn_mss.h"

#include <arpa/inet.h>

#include <cstring>

namespace ramferry::dpdk {
namespace {

constexpr size_t kIpAt = 14;  // after the Ethernet header
constexpr uint16_t kEtherTypeIp = 0x0800;
constexpr uint8_t kTcp = 6;
constexpr uint8_t kSyn = 0x02;
constexpr size_t kTcpHeader = 20;
constexpr size_t kChecksumAt = 16;  // in the TCP header
constexpr uint8_t kOptionEnd = 0;
constexpr uint8_t kOptionNothing = 1;
constexpr uint8_t kOptionMss = 2;

uint8_t ByteAt(std::span<const std::byte> frame, size_t at) {
  return std::to_integer<uint8_t>(frame[at]);
}
uint16_t ShortAt(std::span<const std::byte> frame, size_t at) {
  return static_cast<uint16_t>(ByteAt(frame, at) << 8 | ByteAt(frame, at + 1));
}
void SetShort(std::span<std::byte> frame, size_t at, uint16_t value) {
  frame[at] = static_cast<std::byte>(value >> 8);
  frame[at + 1] = static_cast<std::byte>(value & 0xff);
}
uint32_t AddressAt(std::span<const std::byte> frame, size_t at) {
  uint32_t address;
  std::memcpy(&address, frame.data() + at, sizeof address);
  return address;
}

}  // namespace

std::optional<SynFrame> ReadSyn(std::span<const std::byte> frame) {
  if (frame.size() < kIpAt + 20 || ShortAt(frame, 12) != kEtherTypeIp) return std::nullopt;
  const size_t ip_header = (ByteAt(frame, kIpAt) & 0x0fU) * 4U;
  const size_t tcp_at = kIpAt + ip_header;
  if (ByteAt(frame, kIpAt) >> 4 != 4 || ip_header < 20 || ByteAt(frame, kIpAt + 9) != kTcp ||
      (ShortAt(frame, kIpAt + 6) & 0x1fff) != 0 || frame.size() < tcp_at + kTcpHeader ||
      (ByteAt(frame, tcp_at + 13) & kSyn) == 0) {
    return std::nullopt;
  }
  const size_t header = static_cast<size_t>(ByteAt(frame, tcp_at + 12) >> 4) * 4U;
  if (header < kTcpHeader || frame.size() < tcp_at + header) return std::nullopt;
  SynFrame syn{.source = AddressAt(frame, kIpAt + 12),
               .destination = AddressAt(frame, kIpAt + 16),
               .source_port = ShortAt(frame, tcp_at),
               .destination_port = ShortAt(frame, tcp_at + 2),
               .tcp_at = tcp_at};
  for (size_t at = tcp_at + kTcpHeader; at < tcp_at + header;) {
    const uint8_t kind = ByteAt(frame, at);
    if (kind == kOptionEnd) break;
    if (kind == kOptionNothing) {
      ++at;
      continue;
    }
    if (at + 1 >= tcp_at + header) break;
    const uint8_t length = ByteAt(frame, at + 1);
    if (length < 2 || at + length > tcp_at + header) break;
    if (kind == kOptionMss && length == 4) {
      syn.mss = ShortAt(frame, at + 2);
      syn.mss_at = at + 2;
    }
    at += length;
  }
  return syn;
}

void AnnounceMss(std::span<std::byte> frame, uint16_t mss) {
  const auto syn = ReadSyn(frame);
  if (!syn || syn->mss_at == 0) return;
  // An option may begin at an odd place; its bytes then are halves of two words of the sum.
  const bool odd = (syn->mss_at - syn->tcp_at) % 2 != 0;
  const auto in_sum = [odd](uint16_t value) {
    return odd ? static_cast<uint16_t>(value << 8 | value >> 8) : value;
  };
  const size_t checksum_at = syn->tcp_at + kChecksumAt;
  uint32_t sum = static_cast<uint16_t>(~ShortAt(frame, checksum_at));
  sum += static_cast<uint16_t>(~in_sum(syn->mss));
  sum += in_sum(mss);
  sum = (sum >> 16) + (sum & 0xffffU);
  sum = (sum >> 16) + (sum & 0xffffU);
  SetShort(frame, syn->mss_at, mss);
  SetShort(frame, checksum_at, static_cast<uint16_t>(~sum));
}

}  // namespace ramferry::dpdk
