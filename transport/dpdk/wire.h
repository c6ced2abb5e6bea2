// What the TCP sees of a network port: Ethernet frames in bursts. A DPDK port behind it (port.h);
// tests put loss and disorder in between.
//
// One thread, the polling one, uses a wire. Frames live in buffers of the port, each with some room
// of its owner's beside it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace ramferry::dpdk {

using MacAddress = std::array<uint8_t, 6>;

// Bytes that belong to whoever has the frame, aligned for any type.
inline constexpr size_t kFrameRoom = 64;

struct Frame {
  std::byte* data = nullptr;  // from the destination's MAC address on
  uint32_t length = 0;
  void* buffer = nullptr;  // what Free and Send take
  void* room = nullptr;    // kFrameRoom bytes
};

// Written by the polling thread, read by any.
struct WireCounters {
  std::atomic<uint64_t> received{0};  // frames
  std::atomic<uint64_t> received_bytes{0};
  std::atomic<uint64_t> sent{0};
  std::atomic<uint64_t> sent_bytes{0};
  std::atomic<uint64_t> not_sent{0};   // the port took them not even after many tries
  std::atomic<uint64_t> no_buffer{0};  // times that there was no buffer for a frame to send
};

class Wire {
 public:
  virtual ~Wire() = default;

  [[nodiscard]] virtual MacAddress mac() const = 0;
  // How people know the port, and by which driver: "eth1 (net_af_packet)".
  [[nodiscard]] virtual std::string name() const = 0;

  // Up to frames.size() frames that have come.
  [[nodiscard]] virtual size_t Receive(std::span<Frame> frames) = 0;
  // A frame of `length` bytes to be filled and sent. False: no buffer is free.
  [[nodiscard]] virtual bool Allocate(uint32_t length, Frame& frame) = 0;
  // Takes the frame over; it leaves with the next Flush at the latest.
  virtual void Send(const Frame& frame) = 0;
  virtual void Flush() = 0;
  virtual void Free(void* buffer) = 0;

  [[nodiscard]] virtual const WireCounters& counters() const = 0;
  // Frames that the port itself lost on the way in (its rings or buffers were full), as far as the
  // driver tells; thread-safe.
  [[nodiscard]] virtual uint64_t missed() const = 0;
};

}  // namespace ramferry::dpdk
