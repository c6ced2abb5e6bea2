#include "transport/tcp/tcp_connector.h"

#include <fmt/format.h>

#include <utility>

#include "base/local_interface.h"
#include "base/status.h"
#include "transport/tcp/handshake.h"
#include "transport/tcp/socket.h"
#include "transport/tcp/tcp_page_channel.h"
#include "transport/tcp/tls.h"

namespace ramferry {
namespace {

absl::StatusOr<std::unique_ptr<tcp::ByteStream>> OpenStream(const TcpOptions& options,
                                                            const tcp::TlsContext* tls,
                                                            const ChannelOffer& offer,
                                                            const std::string& token,
                                                            Deadline deadline) {
  ASSIGN_OR_RETURN(UniqueFd socket,
                   tcp::ConnectTo(offer.address, offer.port, options.cancel_fd, deadline));
  RETURN_IF_ERROR(tcp::Prepare(socket, options.stall_timeout));
  std::unique_ptr<tcp::ByteStream> stream;
  if (tls != nullptr) {
    ASSIGN_OR_RETURN(stream, tls->Secure(std::move(socket), options.cancel_fd, deadline));
  } else {
    stream = tcp::PlainStream(std::move(socket));
  }
  RETURN_IF_ERROR(tcp::Introduce(*stream, token, options.cancel_fd, deadline));
  return stream;
}

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
  if (offer.encrypted != (tls_ != nullptr)) {
    return absl::FailedPreconditionError(
        fmt::format("the destination offers {} page channels, this host is set to {}: set "
                    "encryption alike on both hosts",
                    offer.encrypted ? "encrypted" : "plain", tls_ ? "encrypted" : "plain"));
  }
  std::vector<std::unique_ptr<PageChannel>> channels;
  for (const std::string& token : offer.tokens) {
    const std::string name = fmt::format("page channel {} to {}", channels.size() + 1,
                                         tcp::Endpoint(offer.address, offer.port));
    const size_t index = channels.size();
    const BoundForAWhile beside_its_worker(index < places_.size() ? places_[index].cpus : CpuSet());
    auto stream = OpenStream(options_, tls_.get(), offer, token, deadline);
    if (!stream.ok()) return Annotate(stream.status(), name);
    channels.push_back(std::make_unique<tcp::TcpPageChannel>(*std::move(stream), source, name,
                                                             options_.stall_timeout));
  }
  return channels;
}

std::vector<std::string> TcpConnector::NicsTo(const ChannelOffer& offer) {
  const std::string interface = InterfaceTowards(offer.address);
  return interface.empty() ? std::vector<std::string>() : std::vector{interface};
}

}  // namespace ramferry
