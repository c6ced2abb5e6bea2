// The control port: takes connections, and sees to it that nobody can use up what this host may
// have open.
//
//   ASSIGN_OR_RETURN(auto door, Door::Open("::", 7711));
//   door->Begin([](UniqueFd connection) { /* gRPC takes it over */ });
//   ...
//   RETURN_IF_ERROR(door->Prove("ipv4:192.0.2.1:4711", "alpha.example"));  // at each call
//
// gRPC's own listener takes any number, and once accept(2) has failed (too many open files) it
// never takes another one. Here a connection whose host has not been proven is one of at most
// kMostUnproven; of those the oldest goes first, of the address that has most. One host has at most
// kMostOfOneHost. Where the process has no descriptor left, connections wait in the kernel's queue.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace ramferry {

class Door {
 public:
  static constexpr size_t kMostUnproven = 64;
  static constexpr size_t kMostOfOneHost = 128;  // 64 migrations, and as many questions
  // Owns the connection, which does not block. It must be shut down (shutdown(2)) when it is done
  // with, as gRPC does: only so is it known here that it has ended.
  using Taker = std::function<void(UniqueFd connection)>;

  // IPv4 or IPv6 address or host name; "::": all addresses, IPv4 too. Port 0: any free one.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<Door>> Open(const std::string& address,
                                                                  uint16_t port);
  ~Door();
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;

  [[nodiscard]] uint16_t port() const { return port_; }
  void Begin(Taker taker);
  // Takes no more. Connections live on.
  void Close();

  // The connection from `peer` (gRPC's URI) has proven to be `host`'s. ResourceExhausted: that host
  // has too many; this one stays unproven. Thread-safe.
  [[nodiscard]] absl::Status Prove(const std::string& peer, const std::string& host);

 private:
  struct Visitor {
    UniqueFd watch;  // a copy: ready when gRPC has shut the connection down
    std::string address;
    uint16_t port = 0;
    std::string host;      // empty: not proven
    bool leaving = false;  // we have shut it down
  };

  Door(std::vector<UniqueFd> listening, uint16_t port);
  void Run();
  void Take(int listening);
  void MakeRoom();  // lock held

  const std::vector<UniqueFd> listening_;
  const uint16_t port_;
  const UniqueFd stop_;  // an eventfd
  Taker taker_;
  std::mutex mutex_;
  std::list<Visitor> visitors_;  // oldest first; guarded by mutex_
  std::thread thread_;
};

}  // namespace ramferry
