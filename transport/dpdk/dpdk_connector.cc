#include <algorithm>
#include <utility>

#include "base/status.h"
#include "transport/dpdk/dpdk_stream.h"
#include "transport/dpdk/dpdk_transport.h"
#include "transport/dpdk/poller.h"
#include "transport/tcp/open_channels.h"
#include "transport/tcp/tls.h"

namespace ramferry::dpdk {
namespace {

using namespace std::chrono_literals;

// A peer in the same rack answers at once; another transport is waiting.
constexpr auto kConnectTime = 5s;

}  // namespace

DpdkConnector::DpdkConnector(std::shared_ptr<Poller> poller, TcpOptions options,
                             std::shared_ptr<const tcp::TlsContext> tls)
    : poller_(std::move(poller)), options_(std::move(options)), tls_(std::move(tls)) {}

absl::StatusOr<std::unique_ptr<DpdkConnector>> DpdkConnector::Create(std::shared_ptr<Poller> poller,
                                                                     const TcpOptions& options) {
  std::shared_ptr<const tcp::TlsContext> tls;
  if (options.encryption) {
    ASSIGN_OR_RETURN(tls, tcp::TlsContext::Create(options, tcp::TlsContext::Side::kSource));
  }
  return std::unique_ptr<DpdkConnector>(
      new DpdkConnector(std::move(poller), options, std::move(tls)));
}

std::vector<std::string> DpdkConnector::takes() const {
  return options_.encryption ? std::vector<std::string>{"dpdk-tls", "tcp-tls"}
                             : std::vector<std::string>{"dpdk", "tcp"};
}

absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> DpdkConnector::Connect(
    const ChannelOffer& offer, std::span<const MappedRegion> source, Deadline deadline) {
  const auto dial = [this](const ChannelOffer& to,
                           Deadline until) -> absl::StatusOr<std::unique_ptr<tcp::ByteStream>> {
    ASSIGN_OR_RETURN(auto connection,
                     poller_->Connect(to.address, to.port, options_.stall_timeout,
                                      options_.cancel_fd, std::min(until, In(kConnectTime))));
    return StreamOver(poller_, std::move(connection));
  };
  return tcp::OpenChannels(
      options_, tls_.get(), offer,
      {.source = source, .places = places_, .path = "DPDK port " + poller_->Describe()}, dial,
      deadline);
}

std::vector<std::pair<std::string, uint64_t>> DpdkConnector::counters() const {
  return poller_->Counters();
}

}  // namespace ramferry::dpdk
