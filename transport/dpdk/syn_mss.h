// The maximum segment size in TCP handshakes, as frames carry it.
//
// Debian's lwIP is built for segments of 1460 bytes: it announces no more, and believes no more of
// its peer. It works with longer ones, though, if it is told; so what it announces is raised in its
// frames as they leave, and what peers announce is read from theirs (RFC 9293, section 3.7.1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace ramferry::dpdk {

// Who opens or answers, and with what.
struct SynFrame {
  uint32_t source = 0;  // IPv4 address, in network order
  uint32_t destination = 0;
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint16_t mss = 0;   // announced; 0: nothing was
  size_t mss_at = 0;  // where in the frame
  size_t tcp_at = 0;  // where the TCP header begins
};

// What an untagged Ethernet frame says, if it is IPv4 with a whole TCP header with SYN.
[[nodiscard]] std::optional<SynFrame> ReadSyn(std::span<const std::byte> frame);

// Sets what such a frame announces, and mends its checksum (RFC 1624). Other frames stay as they
// are, and so does one that announces nothing.
void AnnounceMss(std::span<std::byte> frame, uint16_t mss);

}  // namespace ramferry::dpdk
