#include "transport/tcp/tcp_connector.h"

#include <algorithm>
#include <utility>

#include "base/local_interface.h"
#include "base/status.h"
#include "transport/tcp/open_channels.h"
#include "transport/tcp/socket.h"
#include "transport/tcp/tls.h"

namespace ramferry {
namespace {

constexpr std::chrono::seconds kDpdkConnectTime{5};

}  // namespace

TcpConnector::TcpConnector(TcpOptions options, std::shared_ptr<const tcp::TlsContext> tls)
    : options_(std::move(options)), tls_(std::move(tls)) {}

absl::StatusOr<std::unique_ptr<TcpConnector>> TcpConnector::Create(const TcpOptions& options) {
  std::shared_ptr<const tcp::TlsContext> tls;
  if (options.encryption) {
    ASSIGN_OR_RETURN(tls, tcp::TlsContext::Create(options, tcp::TlsContext::Side::kSource));
  }
  return std::unique_ptr<TcpConnector>(new TcpConnector(options, std::move(tls)));
}

absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> TcpConnector::Connect(
    const ChannelOffer& offer, std::span<const MappedRegion> source, Deadline deadline) {
  const auto dial = [this](const ChannelOffer& to,
                           Deadline until) -> absl::StatusOr<std::unique_ptr<tcp::ByteStream>> {
    ASSIGN_OR_RETURN(UniqueFd socket,
                     tcp::ConnectTo(to.address, to.port, options_.cancel_fd, until));
    RETURN_IF_ERROR(tcp::Prepare(socket, options_.stall_timeout));
    return tcp::PlainStream(std::move(socket));
  };
  // A DPDK port may be in a network that the kernel does not reach; the kernel's own offer is next.
  if (offer.transport.starts_with("dpdk")) deadline = std::min(deadline, In(kDpdkConnectTime));
  return tcp::OpenChannels(options_, tls_.get(), offer, {.source = source, .places = places_}, dial,
                           deadline);
}

std::vector<std::string> TcpConnector::NicsTo(const ChannelOffer& offer) {
  const std::string interface = InterfaceTowards(offer.address);
  return interface.empty() ? std::vector<std::string>() : std::vector{interface};
}

}  // namespace ramferry
