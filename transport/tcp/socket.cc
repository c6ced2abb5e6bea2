#include "transport/tcp/socket.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/status.h"
#include "transport/tcp/byte_stream.h"

namespace ramferry::tcp {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

// As bind(2) and connect(2) want it; the C interface knows no other way.
const sockaddr* AsSockaddr(const sockaddr_storage& storage) {
  return reinterpret_cast<const sockaddr*>(&storage);
}
sockaddr* AsSockaddr(sockaddr_storage& storage) {
  return reinterpret_cast<sockaddr*>(&storage);
}

absl::StatusOr<Addresses> Resolve(const std::string& host, uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_flags = flags | AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  const int error = ::getaddrinfo(host.c_str(), service.c_str(), &hints, &found);
  if (error != 0) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is not a numeric address: {}", host, ::gai_strerror(error)));
  }
  return Addresses(found, &::freeaddrinfo);
}

bool Set(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

std::string Name(const sockaddr_storage& address, socklen_t length) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (::getnameinfo(AsSockaddr(address), length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "an unknown address";
  }
  return address.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host, port)
                                       : fmt::format("{}:{}", host, port);
}

}  // namespace

std::string Endpoint(const std::string& host, uint16_t port) {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

absl::StatusOr<UniqueFd> ConnectTo(const std::string& host, uint16_t port, int interrupt_fd,
                                   Deadline deadline) {
  const std::string where = Endpoint(host, port);
  if (host.empty()) {
    return absl::InvalidArgumentError("the destination's offer of page channels has no address");
  }
  ASSIGN_OR_RETURN(const Addresses addresses, Resolve(host, port, 0));
  UniqueFd socket(
      ::socket(addresses->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!socket.valid()) return ErrnoStatus(errno, "cannot make a socket");
  int error = 0;
  if (::connect(socket.get(), addresses->ai_addr, addresses->ai_addrlen) != 0) error = errno;
  if (error == EINPROGRESS || error == EINTR) {
    const absl::Status waited = WaitFor(socket.get(), POLLOUT, interrupt_fd, deadline);
    if (absl::IsDeadlineExceeded(waited)) {
      return absl::DeadlineExceededError(
          fmt::format("{} does not answer: is a firewall in between?", where));
    }
    RETURN_IF_ERROR(waited);
    socklen_t size = sizeof error;
    ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error != 0) {
    return absl::UnavailableError(
        ErrnoStatus(error, fmt::format("cannot connect to {}", where)).message());
  }
  return socket;
}

absl::StatusOr<UniqueFd> ListenAt(const std::string& host, uint16_t port) {
  const std::string where = host.empty() ? fmt::format("port {}", port) : Endpoint(host, port);
  ASSIGN_OR_RETURN(const Addresses addresses,
                   Resolve(host.empty() ? "::" : host, port, AI_PASSIVE));
  UniqueFd socket(
      ::socket(addresses->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!socket.valid() && errno == EAFNOSUPPORT && host.empty()) {  // no IPv6 in this kernel
    return ListenAt("0.0.0.0", port);
  }
  if (!socket.valid()) return ErrnoStatus(errno, "cannot make a socket");
  Set(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (addresses->ai_family == AF_INET6) {
    Set(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, host.empty() ? 0 : 1);
  }
  if (::bind(socket.get(), addresses->ai_addr, addresses->ai_addrlen) != 0 ||
      ::listen(socket.get(), SOMAXCONN) != 0) {
    return ErrnoStatus(errno, fmt::format("cannot listen for page channels at {}", where));
  }
  return socket;
}

absl::StatusOr<uint16_t> PortOf(const UniqueFd& listening) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(listening.get(), AsSockaddr(address), &length) != 0) {
    return ErrnoStatus(errno, "cannot ask for the port of a socket");
  }
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

absl::Status Prepare(const UniqueFd& socket, std::chrono::milliseconds silence) {
  const int fd = socket.get();
  const int milliseconds = static_cast<int>(std::max<int64_t>(silence.count(), 1));
  // Probes go out while nothing is sent; TCP_USER_TIMEOUT decides when to give up (tcp(7)).
  const int seconds = std::max(milliseconds / 2000, 1);
  if (!Set(fd, IPPROTO_TCP, TCP_NODELAY, 1) || !Set(fd, SOL_SOCKET, SO_KEEPALIVE, 1) ||
      !Set(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds) || !Set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1) ||
      !Set(fd, IPPROTO_TCP, TCP_KEEPCNT, seconds + 1) ||
      !Set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, milliseconds)) {
    return ErrnoStatus(errno, "cannot set up a connection");
  }
  return absl::OkStatus();
}

std::string PeerOf(const UniqueFd& socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getpeername(socket.get(), AsSockaddr(address), &length) != 0) return "an unknown address";
  return Name(address, length);
}

}  // namespace ramferry::tcp
