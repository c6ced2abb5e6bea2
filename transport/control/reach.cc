#include "transport/control/reach.h"

#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "base/status.h"
#include "transport/control/peer.h"

namespace ramferry {
namespace {

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using AddressList = std::unique_ptr<addrinfo, FreeAddresses>;

absl::StatusOr<UniqueFd> ConnectTo(const addrinfo& address, const std::string& peer,
                                   Deadline deadline) {
  UniqueFd fd(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoStatus(errno, "cannot make a socket");
  int error = 0;
  if (::connect(fd.get(), address.ai_addr, address.ai_addrlen) != 0) error = errno;
  if (error == EINPROGRESS) {
    pollfd waiting = {.fd = fd.get(), .events = POLLOUT};
    if (::poll(&waiting, 1, MillisecondsLeft(deadline)) <= 0) {
      return absl::UnavailableError(
          fmt::format("{} does not answer; check the address and the firewalls between", peer));
    }
    socklen_t size = sizeof error;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error == 0) return fd;
  if (error == ECONNREFUSED) {
    return absl::UnavailableError(fmt::format(
        "nothing listens on {}; start 'ramferry receive' there, or correct the port", peer));
  }
  return absl::UnavailableError(ErrnoStatus(error, "cannot connect to " + peer).message());
}

}  // namespace

absl::StatusOr<Reached> ReachTcp(const std::string& host, uint16_t port, Deadline deadline) {
  const addrinfo hints = {.ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
      error != 0) {
    return absl::UnavailableError(
        fmt::format("cannot find the host {}: {}; correct its name, or give its address", host,
                    ::gai_strerror(error)));
  }
  const AddressList addresses(found);
  absl::Status status;
  for (const addrinfo* next = addresses.get(); next != nullptr; next = next->ai_next) {
    absl::StatusOr<UniqueFd> fd = ConnectTo(*next, HostAndPort(host, port), deadline);
    if (!fd.ok()) {
      status = fd.status();
      continue;
    }
    char numeric[NI_MAXHOST] = "";
    ::getnameinfo(next->ai_addr, next->ai_addrlen, numeric, sizeof numeric, nullptr, 0,
                  NI_NUMERICHOST);
    return Reached{.connection = *std::move(fd), .address = numeric};
  }
  return status;
}

}  // namespace ramferry
