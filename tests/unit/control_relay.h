// A TCP relay on loopback that can fall silent: connections stay open, nothing is forwarded.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/unique_fd.h"

namespace ramferry {

class Relay {
 public:
  explicit Relay(uint16_t target) : target_(target) {
    listener_.Reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof address;
    ::bind(listener_.get(), Generic(address), size);
    ::listen(listener_.get(), 16);
    ::getsockname(listener_.get(), Generic(address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  ~Relay() {
    stop_ = true;
    thread_.join();
  }
  [[nodiscard]] uint16_t port() const { return port_; }
  void FallSilent() { silent_ = true; }
  void SpeakAgain() { silent_ = false; }
  // All connections are reset now; new ones are accepted.
  void Cut() { cut_ = true; }

 private:
  static sockaddr_in Loopback(uint16_t port) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  static sockaddr* Generic(sockaddr_in& address) { return reinterpret_cast<sockaddr*>(&address); }

  void Run() {
    struct Pair {
      UniqueFd ends[2];
    };
    std::vector<Pair> pairs;
    while (!stop_) {
      if (cut_.exchange(false)) pairs.clear();
      std::vector<pollfd> polled = {{.fd = listener_.get(), .events = POLLIN}};
      for (Pair& pair : pairs) {
        for (UniqueFd& end : pair.ends) polled.push_back({.fd = end.get(), .events = POLLIN});
      }
      ::poll(polled.data(), polled.size(), 10);
      if (silent_) {
        ::usleep(10'000);
        continue;
      }
      for (size_t i = 1; i < polled.size(); ++i) {
        if ((polled[i].revents & (POLLIN | POLLHUP | POLLERR)) == 0) continue;
        char buffer[65536];
        UniqueFd* ends = pairs[(i - 1) / 2].ends;
        const ssize_t got = ::recv(polled[i].fd, buffer, sizeof buffer, 0);
        const int other = ends[(i - 1) % 2 == 0 ? 1 : 0].get();
        if (got > 0) {
          ::send(other, buffer, static_cast<size_t>(got), MSG_NOSIGNAL);
        } else {
          ends[0].Reset();  // poll ignores negative fds
          ends[1].Reset();
          break;
        }
      }
      if ((polled[0].revents & POLLIN) != 0) {
        Pair pair;
        pair.ends[0].Reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        pair.ends[1].Reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in address = Loopback(target_);
        ::connect(pair.ends[1].get(), Generic(address), sizeof address);
        pairs.push_back(std::move(pair));
      }
    }
  }

  const uint16_t target_;
  uint16_t port_ = 0;
  UniqueFd listener_;
  std::atomic<bool> silent_{false};
  std::atomic<bool> cut_{false};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace ramferry
