#include "transport/control/door.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>
#include <utility>

#include "base/status.h"
#include "transport/control/connection_limits.h"
#include "transport/control/listen_error.h"
#include "transport/control/peer.h"
#include "transport/tcp/event.h"

namespace ramferry {
namespace {

// How many that were shut down gRPC may be slow to let go of, before no more are taken.
constexpr size_t kMostLeaving = 64;
// Before another try where the process has no descriptor left.
constexpr int kTryAgainMs = 100;

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Addresses Resolve(const std::string& address) {
  const addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  if (::getaddrinfo(address.c_str(), nullptr, &hints, &found) != 0) found = nullptr;
  return {found, &::freeaddrinfo};
}

uint16_t& PortIn(sockaddr* address) {
  return address->sa_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(address)->sin6_port
                                        : reinterpret_cast<sockaddr_in*>(address)->sin_port;
}

UniqueFd ListenAt(const addrinfo& where, bool every_address) {
  UniqueFd fd(::socket(where.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const auto set = [&fd](int level, int option, int value) {
    ::setsockopt(fd.get(), level, option, &value, sizeof value);
  };
  set(SOL_SOCKET, SO_REUSEADDR, 1);
  if (where.ai_family == AF_INET6) set(IPPROTO_IPV6, IPV6_V6ONLY, every_address ? 0 : 1);
  // Connections inherit these.
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kKeepaliveTimeoutMilliseconds);
  if (!fd.valid() || ::bind(fd.get(), where.ai_addr, where.ai_addrlen) != 0 ||
      ::listen(fd.get(), SOMAXCONN) != 0) {
    return UniqueFd();
  }
  return fd;
}

// Numeric, without a zone; IPv4 as such, even where it comes by an IPv6 socket.
std::string TextOf(const sockaddr_storage& peer) {
  char text[INET6_ADDRSTRLEN] = "";
  if (peer.ss_family == AF_INET) {
    ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(peer).sin_addr, text, sizeof text);
  } else if (peer.ss_family == AF_INET6) {
    const in6_addr& address = reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr;
    const bool mapped = IN6_IS_ADDR_V4MAPPED(&address);
    ::inet_ntop(mapped ? AF_INET : AF_INET6, address.s6_addr + (mapped ? 12 : 0), text,
                sizeof text);
  }
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Door>> Door::Open(const std::string& address, uint16_t port) {
  std::vector<UniqueFd> listening;
  const bool every_address = address == "::";
  const auto listen_on = [&](const std::string& host) {
    const Addresses found = Resolve(host);
    for (const addrinfo* next = found.get(); next != nullptr; next = next->ai_next) {
      PortIn(next->ai_addr) = htons(port);
      UniqueFd fd = ListenAt(*next, every_address);
      if (!fd.valid()) continue;
      sockaddr_storage bound{};
      socklen_t length = sizeof bound;
      auto* const generic = reinterpret_cast<sockaddr*>(&bound);
      if (::getsockname(fd.get(), generic, &length) == 0) port = ntohs(PortIn(generic));
      listening.push_back(std::move(fd));
    }
  };
  listen_on(address);
  if (listening.empty() && every_address) listen_on("0.0.0.0");  // no IPv6 in this kernel
  if (listening.empty()) return ExplainListenError(address, port);
  return std::unique_ptr<Door>(new Door(std::move(listening), port));
}

Door::Door(std::vector<UniqueFd> listening, uint16_t port)
    : listening_(std::move(listening)),
      port_(port),
      stop_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Door::~Door() {
  Close();
}

void Door::Begin(Taker taker) {
  taker_ = std::move(taker);
  thread_ = std::thread([this] { Run(); });
}

void Door::Close() {
  tcp::SignalEvent(stop_);
  if (thread_.joinable()) thread_.join();
}

void Door::Run() {
  std::vector<pollfd> polled;
  while (true) {
    polled.assign({{.fd = stop_.get(), .events = POLLIN}});
    size_t leaving = 0;
    {
      const std::lock_guard lock(mutex_);
      for (const Visitor& visitor : visitors_) {
        // Reported is only that both directions are shut.
        polled.push_back({.fd = visitor.watch.get(), .events = 0});
        if (visitor.leaving) ++leaving;
      }
    }
    const size_t visitors = polled.size() - 1;
    if (leaving < kMostLeaving) {
      for (const UniqueFd& fd : listening_) polled.push_back({.fd = fd.get(), .events = POLLIN});
    }
    if (::poll(polled.data(), polled.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    if (polled[0].revents != 0) return;
    {
      const std::lock_guard lock(mutex_);
      // Only this thread adds and removes: the order is that of before.
      size_t next = 1;
      std::erase_if(visitors_, [&](const Visitor&) { return polled[next++].revents != 0; });
    }
    for (size_t i = 1 + visitors; i < polled.size(); ++i) {
      if (polled[i].revents != 0) Take(polled[i].fd);
    }
  }
}

void Door::Take(int listening) {
  sockaddr_storage peer{};
  socklen_t length = sizeof peer;
  auto* const generic = reinterpret_cast<sockaddr*>(&peer);
  UniqueFd connection(::accept4(listening, generic, &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!connection.valid()) {
    if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) return;
    spdlog::warn("cannot take a connection: {}", Message(ErrnoStatus(errno, "accept")));
    pollfd stop{.fd = stop_.get(), .events = POLLIN};
    ::poll(&stop, 1, kTryAgainMs);
    return;
  }
  UniqueFd watch(::fcntl(connection.get(), F_DUPFD_CLOEXEC, 0));
  if (!watch.valid()) return;  // what cannot be watched is not taken
  {
    const std::lock_guard lock(mutex_);
    visitors_.push_back(
        {.watch = std::move(watch), .address = TextOf(peer), .port = ntohs(PortIn(generic))});
    MakeRoom();
  }
  taker_(std::move(connection));
}

void Door::MakeRoom() {
  std::map<std::string_view, size_t> unproven;
  size_t all = 0;
  for (const Visitor& visitor : visitors_) {
    if (!visitor.host.empty() || visitor.leaving) continue;
    ++unproven[visitor.address];
    ++all;
  }
  if (all <= kMostUnproven) return;
  const auto crowd =
      std::max_element(unproven.begin(), unproven.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  const size_t most = crowd->second;
  const auto oldest = std::find_if(visitors_.begin(), visitors_.end(), [&](const Visitor& visitor) {
    return visitor.host.empty() && !visitor.leaving && unproven[visitor.address] == most;
  });
  oldest->leaving = true;
  ::shutdown(oldest->watch.get(), SHUT_RDWR);
}

absl::Status Door::Prove(const std::string& peer, const std::string& host) {
  std::string address = AddressOfPeer(peer);
  address = address.substr(0, address.find('%'));
  uint16_t port = 0;
  std::from_chars(peer.data() + peer.rfind(':') + 1, peer.data() + peer.size(), port);
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(visitors_.rbegin(), visitors_.rend(), [&](const Visitor& one) {
    return one.port == port && one.address == address;
  });
  if (found == visitors_.rend() || !found->host.empty()) return absl::OkStatus();
  const auto of_host = std::count_if(visitors_.begin(), visitors_.end(),
                                     [&](const Visitor& one) { return one.host == host; });
  if (of_host >= static_cast<ptrdiff_t>(kMostOfOneHost)) {
    return absl::ResourceExhaustedError(
        fmt::format("{} has {} connections here, and one host may have no more", host, of_host));
  }
  found->host = host;
  return absl::OkStatus();
}

}  // namespace ramferry
