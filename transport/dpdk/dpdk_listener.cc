#include <poll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <utility>

#include "base/status.h"
#include "transport/dpdk/dpdk_stream.h"
#include "transport/dpdk/dpdk_transport.h"
#include "transport/dpdk/poller.h"
#include "transport/tcp/channel_desk.h"
#include "transport/tcp/event.h"
#include "transport/tcp/tls.h"

namespace ramferry::dpdk {

DpdkListener::DpdkListener(std::shared_ptr<Poller> poller, std::shared_ptr<Listening> listening,
                           uint16_t port, TcpOptions options,
                           std::shared_ptr<const tcp::TlsContext> tls)
    : poller_(std::move(poller)),
      listening_(std::move(listening)),
      port_(port),
      options_(std::move(options)),
      desk_(std::make_unique<tcp::ChannelDesk>(options_, std::move(tls))),
      stop_event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      accepting_([this] { Accept(); }) {}

absl::StatusOr<std::unique_ptr<DpdkListener>> DpdkListener::Create(std::shared_ptr<Poller> poller,
                                                                   uint16_t port,
                                                                   const TcpOptions& options) {
  std::shared_ptr<const tcp::TlsContext> tls;
  if (options.encryption) {
    ASSIGN_OR_RETURN(tls, tcp::TlsContext::Create(options, tcp::TlsContext::Side::kDestination));
  }
  ASSIGN_OR_RETURN(auto listening, poller->Listen(port, options.stall_timeout));
  return std::unique_ptr<DpdkListener>(new DpdkListener(std::move(poller), listening.first,
                                                        listening.second, options, std::move(tls)));
}

DpdkListener::~DpdkListener() {
  poller_->StopListening(port_);
  tcp::SignalEvent(stop_event_);
  accepting_.join();
}

absl::StatusOr<std::unique_ptr<ChannelReceiver>> DpdkListener::Expect(
    std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels) {
  const std::string& address = poller_->options().address;
  return desk_->Expect(
      regions, channels,
      {.transport = transport(), .address = address.substr(0, address.find('/')), .port = port_});
}

void DpdkListener::Accept() {
  while (true) {
    pollfd waiting[2] = {{.fd = listening_->fd(), .events = POLLIN},
                         {.fd = stop_event_.get(), .events = POLLIN}};
    if (::poll(waiting, 2, -1) < 0 && errno != EINTR) return;
    if (waiting[1].revents != 0) return;
    for (Listening::Arrival& arrival : listening_->Take()) {
      desk_->Admit(StreamOver(poller_, std::move(arrival.connection)), arrival.peer);
    }
  }
}

}  // namespace ramferry::dpdk
