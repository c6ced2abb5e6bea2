// The one polling thread of a process: DPDK's port and lwIP are set up in it and belong to it.
//
//   ASSIGN_OR_RETURN(std::shared_ptr<Poller> poller, Poller::Get(options));
//   ASSIGN_OR_RETURN(auto connection, poller->Connect("192.0.2.9", 4711, 5s, -1, In(5s)));
//
// It looks at the port and at every connection in turn. When nothing happens it sleeps, for 20 us
// at first and for up to 2 ms once no connection is left; whoever gives it work wakes it.
//
// lwIP keeps its state in globals, and DPDK can be set up once: so a process has one, and one port.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/unique_fd.h"
#include "transport/dpdk/connection.h"
#include "transport/dpdk/dpdk_options.h"
#include "transport/dpdk/wire.h"

namespace ramferry::dpdk {

// Connections that came to a port number. Thread-safe.
class Listening {
 public:
  struct Arrival {
    std::shared_ptr<Connection> connection;
    std::string peer;  // "192.0.2.7:4711"
  };

  Listening();
  // Readable when Take may have something.
  [[nodiscard]] int fd() const { return event_.get(); }
  [[nodiscard]] std::vector<Arrival> Take();

 private:
  friend class Stack;
  static constexpr size_t kMostWaiting = 64;

  const UniqueFd event_;
  std::mutex mutex_;
  std::vector<Arrival> arrivals_;  // guarded by mutex_
};

// The public calls are thread-safe.
class Poller final : public Waker {
 public:
  // The poller of this process, started with these options if there is none yet. Errors: what the
  // port or DPDK refused, and what to do about it.
  [[nodiscard]] static absl::StatusOr<std::shared_ptr<Poller>> Get(const DpdkOptions& options);
  // Lets connections that were left send their last bytes, for a second.
  ~Poller() override;
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // `address`: IPv4. `silence`: as TcpOptions::stall_timeout. Once `interrupt_fd` is readable it
  // ends with Cancelled.
  [[nodiscard]] absl::StatusOr<std::shared_ptr<Connection>> Connect(
      const std::string& address, uint16_t port, std::chrono::milliseconds silence,
      int interrupt_fd, Deadline deadline);
  // Port 0: any free one; the pair has the one it is.
  [[nodiscard]] absl::StatusOr<std::pair<std::shared_ptr<Listening>, uint16_t>> Listen(
      uint16_t port, std::chrono::milliseconds silence);
  // Connections to here that were begun and not confirmed (Stack::kMostHalfOpen).
  [[nodiscard]] size_t HalfOpen();
  // Takes no more.
  void StopListening(uint16_t port);

  void Wake() override;

  [[nodiscard]] const DpdkOptions& options() const { return options_; }
  // "eth1 (net_af_packet), 192.0.2.7/24, MTU 9000".
  [[nodiscard]] std::string Describe() const;
  // Frames and bytes so far, by name.
  [[nodiscard]] std::vector<std::pair<std::string, uint64_t>> Counters() const;

 private:
  friend class Stack;
  explicit Poller(const DpdkOptions& options);

  absl::Status Begin();
  void Run(const std::function<void(const absl::Status&)>& began);
  void Poll(class Stack& stack);
  // Runs `action` in the polling thread, and waits for it.
  void Do(const std::function<void(class Stack&)>& action);
  void SleepFor(std::chrono::microseconds time);

  const DpdkOptions options_;
  const UniqueFd event_;  // wakes the polling thread
  std::atomic<bool> work_{false};
  std::atomic<bool> asleep_{false};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::deque<std::function<void(class Stack&)>> actions_;  // guarded by mutex_
  Wire* wire_ = nullptr;  // the polling thread's; others read its counters and name
  std::thread thread_;
};

}  // namespace ramferry::dpdk
