#include "base/local_interface.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>

#include "base/unique_fd.h"

namespace ramferry {
namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

// With a port, because connect wants one.
Address Parse(const std::string& text) {
  constexpr uint16_t kDiscard = 9;
  Address address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (::inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(kDiscard);
    address.size = sizeof *v4;
  } else if (::inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(kDiscard);
    address.size = sizeof *v6;
  }
  return address;
}

bool SameHost(const sockaddr* a, const sockaddr* b) {
  if (a == nullptr || a->sa_family != b->sa_family) return false;
  if (a->sa_family == AF_INET) {
    return std::memcmp(&reinterpret_cast<const sockaddr_in*>(a)->sin_addr,
                       &reinterpret_cast<const sockaddr_in*>(b)->sin_addr, sizeof(in_addr)) == 0;
  }
  return a->sa_family == AF_INET6 &&
         std::memcmp(&reinterpret_cast<const sockaddr_in6*>(a)->sin6_addr,
                     &reinterpret_cast<const sockaddr_in6*>(b)->sin6_addr, sizeof(in6_addr)) == 0;
}

std::string Numeric(const sockaddr& address) {
  const void* host = nullptr;
  if (address.sa_family == AF_INET) {
    host = &reinterpret_cast<const sockaddr_in&>(address).sin_addr;
  } else if (address.sa_family == AF_INET6) {
    host = &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  }
  char text[INET6_ADDRSTRLEN];
  if (host == nullptr || ::inet_ntop(address.sa_family, host, text, sizeof text) == nullptr) {
    return "";
  }
  return text;
}

using Interfaces = std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)>;

Interfaces AllInterfaces() {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) all = nullptr;
  return {all, &::freeifaddrs};
}

}  // namespace

std::string InterfaceTowards(const std::string& address) {
  Address to = Parse(address);
  if (to.size == 0) return "";
  // To connect a datagram socket only looks the route up.
  const UniqueFd socket(::socket(to.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  Address from{.size = sizeof from.storage};
  if (!socket.valid() || ::connect(socket.get(), to.get(), to.size) != 0 ||
      ::getsockname(socket.get(), from.get(), &from.size) != 0) {
    return "";
  }
  const Interfaces all = AllInterfaces();
  for (const ifaddrs* one = all.get(); one != nullptr; one = one->ifa_next) {
    if (SameHost(one->ifa_addr, from.get())) return one->ifa_name;
  }
  return "";
}

std::vector<std::string> AddressesOfInterface(const std::string& name) {
  std::vector<std::string> addresses;
  const Interfaces all = AllInterfaces();
  for (const ifaddrs* one = all.get(); one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || name != one->ifa_name) continue;
    const std::string address = Numeric(*one->ifa_addr);
    if (!address.empty() && !address.starts_with("fe80:")) addresses.push_back(address);
  }
  return addresses;
}

}  // namespace ramferry
