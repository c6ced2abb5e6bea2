#include "cli/host_address.h"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "base/unique_fd.h"
#include "fmt/format.h"

namespace ramferry {

absl::StatusOr<HostPort> ParseHostPort(const std::string& text, uint16_t default_port) {
  HostPort result{.host = text, .port = default_port};
  std::string port;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string::npos) {
      return absl::InvalidArgumentError(fmt::format("'{}' lacks a ']'", text));
    }
    result.host = text.substr(1, end - 1);
    port = text.substr(end + 1);
  } else if (std::count(text.begin(), text.end(), ':') == 1) {
    result.host = text.substr(0, text.find(':'));
    port = text.substr(text.find(':'));
  }
  if (!port.empty()) {
    const char* end = port.data() + port.size();
    const auto [after, error] = std::from_chars(port.data() + 1, end, result.port);
    if (port[0] != ':' || error != std::errc() || after != end || result.port == 0) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is not HOST or HOST:PORT with a port from 1 to 65535", text));
    }
  }
  if (result.host.empty()) {
    return absl::InvalidArgumentError(fmt::format("'{}' names no host", text));
  }
  return result;
}

bool IsThisMachine(const std::string& host) {
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, nullptr, &found) != 0) return false;
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const UniqueFd probe(::socket(address->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    // Only an address of this machine can be bound.
    if (!probe.valid() || ::bind(probe.get(), address->ai_addr, address->ai_addrlen) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace ramferry
