// lwIP over a wire. The polling thread's alone; there is one in a process at a time.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "transport/dpdk/connection.h"
#include "transport/dpdk/dpdk_options.h"
#include "transport/dpdk/poller.h"
#include "transport/dpdk/syn_mss.h"
#include "transport/dpdk/wire.h"

struct netif;

namespace ramferry::dpdk {

class Stack {
 public:
  // All must outlive it. InvalidArgument: an address that is none.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<Stack>> Create(Waker& poller, Wire& wire,
                                                                     const DpdkOptions& options);
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  // One look at everything. True: there was something to do.
  [[nodiscard]] bool Turn();
  // No connection is used by anybody.
  [[nodiscard]] bool lonely() const { return connections_.empty(); }
  // Nothing is left to be sent or acknowledged either.
  [[nodiscard]] bool quiet() const;
  void CutAll();

  // As the calls of Poller; does not wait for the connection to be established.
  [[nodiscard]] absl::StatusOr<std::shared_ptr<Connection>> Connect(
      const std::string& address, uint16_t port, std::chrono::milliseconds silence);
  [[nodiscard]] absl::StatusOr<std::pair<std::shared_ptr<Listening>, uint16_t>> Listen(
      uint16_t port, std::chrono::milliseconds silence);
  void StopListening(uint16_t port);
  // Connections that others have begun and not confirmed; at most kMostHalfOpen.
  static constexpr size_t kMostHalfOpen = 128;
  [[nodiscard]] static size_t HalfOpen();
  // Whether the next hop to an address has answered ARP.
  [[nodiscard]] bool Knows(const std::string& address) const;

 private:
  struct Door;  // a port number that is listened on
  struct Callbacks;

  Stack(Waker& poller, Wire& wire, const DpdkOptions& options);
  absl::Status SetUp();
  void Input(const Frame& frame);
  static void MakeRoom();
  // The segment size for a connection whose peer's SYN was seen.
  [[nodiscard]] uint32_t MssOf(const tcp_pcb* pcb) const;

  Waker& poller_;
  Wire& wire_;
  const DpdkOptions options_;
  std::unique_ptr<netif> netif_;
  std::vector<std::shared_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Door>> doors_;
  std::array<SynFrame, 64> syns_{};  // that came last
  size_t next_syn_ = 0;
  Deadline next_timers_{};
};

}  // namespace ramferry::dpdk
