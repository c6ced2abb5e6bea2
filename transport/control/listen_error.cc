#include "transport/control/listen_error.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/status.h"
#include "base/unique_fd.h"
#include "transport/control/peer.h"

namespace ramferry {

absl::Status ExplainListenError(const std::string& address, uint16_t port) {
  const std::string place = HostAndPort(address, port);
  const addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  if (const int error =
          ::getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found);
      error != 0) {
    return absl::InvalidArgumentError(fmt::format(
        "cannot listen on {}: {}; give an address of this host", place, ::gai_strerror(error)));
  }
  int error = 0;
  for (const addrinfo* next = found; next != nullptr && error == 0; next = next->ai_next) {
    const UniqueFd fd(::socket(next->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd.valid() || ::bind(fd.get(), next->ai_addr, next->ai_addrlen) != 0 ||
        ::listen(fd.get(), 1) != 0) {
      error = errno;
    }
  }
  ::freeaddrinfo(found);
  switch (error) {
    case EADDRINUSE:
      return absl::FailedPreconditionError(fmt::format(
          "cannot listen on {}: another program uses this port; is 'ramferry receive' running "
          "already?",
          place));
    case EADDRNOTAVAIL:
      return absl::InvalidArgumentError(
          fmt::format("cannot listen on {}: this host does not have that address", place));
    case 0:
      return absl::UnavailableError(
          fmt::format("cannot listen on {}, or the certificate and key cannot be used", place));
    default:
      return ErrnoStatus(error, "cannot listen on " + place);
  }
}

}  // namespace ramferry
