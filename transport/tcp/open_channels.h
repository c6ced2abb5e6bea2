// Makes page channels out of connections, at the source: the part of a connector that does not care
// which TCP the connections are made by.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "transport/page_channel.h"
#include "transport/tcp/byte_stream.h"
#include "transport/tcp/tcp_options.h"

namespace ramferry::tcp {

class TlsContext;

// A connection to the address and port of an offer.
using Dial = std::function<absl::StatusOr<std::unique_ptr<ByteStream>>(const ChannelOffer& offer,
                                                                       Deadline deadline)>;

struct ChannelRequest {
  std::span<const MappedRegion> source;  // as for TcpPageChannel
  std::span<const ChannelPlace> places;  // of the channels, as far as they are known
  std::string path;                      // ChannelCapabilities::path
};

// One channel for each token of the offer, accepted by the destination; `tls` null: not encrypted.
// FailedPrecondition: one end wants encryption and the other does not.
[[nodiscard]] absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> OpenChannels(
    const TcpOptions& options, const TlsContext* tls, const ChannelOffer& offer,
    const ChannelRequest& request, const Dial& dial, Deadline deadline);

}  // namespace ramferry::tcp
