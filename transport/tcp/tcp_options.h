// What the two ends of TCP page channels can be told. Every default is what most people need.
#pragma once

#include <chrono>
#include <string>

namespace ramferry {

struct TcpOptions {
  // A peer that takes nothing for this long is gone: the channel fails. The kernel's own timers
  // (TCP_USER_TIMEOUT, keepalive) are set to notice a silent host in the same time.
  std::chrono::milliseconds stall_timeout{5000};

  // A connection that has not proven by then that it may be here is closed. Long enough for a TLS
  // handshake on a host that is short of CPU because RDMA has just failed under load.
  std::chrono::milliseconds handshake_timeout{15000};

  // TLS 1.3, both ends proven by certificates of one CA. PEM files; read when the connector or the
  // listener is made. Without it pages and tokens can be read by whoever sees the packets.
  bool encryption = false;
  std::string ca_file;
  std::string certificate_file;
  std::string key_file;

  // Of the source: once this descriptor is readable, connecting ends with Cancelled; -1: none
  // (Cancellation::fd).
  int cancel_fd = -1;
};

}  // namespace ramferry
