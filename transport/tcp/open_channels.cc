#include "transport/tcp/open_channels.h"

#include <fmt/format.h>

#include <utility>

#include "base/status.h"
#include "transport/tcp/handshake.h"
#include "transport/tcp/socket.h"
#include "transport/tcp/tcp_page_channel.h"
#include "transport/tcp/tls.h"

namespace ramferry::tcp {
namespace {

absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(const TcpOptions& options,
                                                       const TlsContext* tls,
                                                       const ChannelOffer& offer,
                                                       const std::string& token, const Dial& dial,
                                                       Deadline deadline) {
  ASSIGN_OR_RETURN(std::unique_ptr<ByteStream> stream, dial(offer, deadline));
  if (tls != nullptr) {
    ASSIGN_OR_RETURN(stream, tls->Secure(std::move(stream), options.cancel_fd, deadline));
  }
  RETURN_IF_ERROR(Introduce(*stream, token, options.cancel_fd, deadline));
  return stream;
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> OpenChannels(
    const TcpOptions& options, const TlsContext* tls, const ChannelOffer& offer,
    const ChannelRequest& request, const Dial& dial, Deadline deadline) {
  if (offer.encrypted != (tls != nullptr)) {
    return absl::FailedPreconditionError(
        fmt::format("the destination offers {} page channels, this host is set to {}: set "
                    "encryption alike on both hosts",
                    offer.encrypted ? "encrypted" : "plain", tls ? "encrypted" : "plain"));
  }
  std::vector<std::unique_ptr<PageChannel>> channels;
  for (const std::string& token : offer.tokens) {
    const size_t index = channels.size();
    const std::string name =
        fmt::format("page channel {} to {}", index + 1, Endpoint(offer.address, offer.port));
    const BoundForAWhile beside_its_worker(
        index < request.places.size() ? request.places[index].cpus : CpuSet());
    auto stream = OpenStream(options, tls, offer, token, dial, deadline);
    if (!stream.ok()) return Annotate(stream.status(), name);
    channels.push_back(std::make_unique<TcpPageChannel>(*std::move(stream), request.source, name,
                                                        options.stall_timeout, request.path));
  }
  return channels;
}

}  // namespace ramferry::tcp
