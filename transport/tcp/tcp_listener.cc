#include "transport/tcp/tcp_listener.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "base/status.h"
#include "transport/tcp/channel_desk.h"
#include "transport/tcp/event.h"
#include "transport/tcp/socket.h"
#include "transport/tcp/tls.h"

namespace ramferry {
TcpListener::TcpListener(UniqueFd socket, std::string address, uint16_t port, TcpOptions options,
                         std::shared_ptr<const tcp::TlsContext> tls)
    : socket_(std::move(socket)),
      address_(std::move(address)),
      port_(port),
      options_(std::move(options)),
      desk_(std::make_unique<tcp::ChannelDesk>(options_, std::move(tls))),
      stop_event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      accepting_([this] { Accept(); }) {}

absl::StatusOr<std::unique_ptr<TcpListener>> TcpListener::Create(const std::string& address,
                                                                 uint16_t port,
                                                                 const TcpOptions& options) {
  std::shared_ptr<const tcp::TlsContext> tls;
  if (options.encryption) {
    ASSIGN_OR_RETURN(tls, tcp::TlsContext::Create(options, tcp::TlsContext::Side::kDestination));
  }
  ASSIGN_OR_RETURN(UniqueFd socket, tcp::ListenAt(address, port));
  ASSIGN_OR_RETURN(const uint16_t bound, tcp::PortOf(socket));
  return std::unique_ptr<TcpListener>(
      new TcpListener(std::move(socket), address, bound, options, std::move(tls)));
}

TcpListener::~TcpListener() {
  tcp::SignalEvent(stop_event_);
  accepting_.join();
}

absl::StatusOr<std::unique_ptr<ChannelReceiver>> TcpListener::Expect(
    std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels) {
  ChannelOffer offer{.transport = transport(), .port = port_};
  // What listens on every address is reached where the control channel was.
  if (address_ != "0.0.0.0" && address_ != "::") offer.address = address_;
  return desk_->Expect(regions, channels, std::move(offer));
}

void TcpListener::Accept() {
  while (true) {
    pollfd waiting[2] = {{.fd = socket_.get(), .events = POLLIN},
                         {.fd = stop_event_.get(), .events = POLLIN}};
    if (::poll(waiting, 2, -1) < 0 && errno != EINTR) return;
    if (waiting[1].revents != 0) return;
    UniqueFd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.valid()) {
      Admit(std::move(socket));
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      spdlog::warn("cannot take a page channel: {}",
                   std::string(ErrnoStatus(errno, "accept").message()));
      // The connection stays in the queue: try again when something may have been freed.
      pollfd stop{.fd = stop_event_.get(), .events = POLLIN};
      ::poll(&stop, 1, 100);
    }
  }
}

void TcpListener::Admit(UniqueFd socket) {
  const std::string peer = tcp::PeerOf(socket);
  if (const absl::Status status = tcp::Prepare(socket, options_.stall_timeout); !status.ok()) {
    spdlog::warn("connection from {}: {}", peer, Message(status));
    return;
  }
  desk_->Admit(tcp::PlainStream(std::move(socket)), peer);
}

}  // namespace ramferry
