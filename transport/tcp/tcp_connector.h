// Opens page channels over TCP, at the source.
//
//   ASSIGN_OR_RETURN(auto connector, TcpConnector::Create(options));
//   ASSIGN_OR_RETURN(auto channels, connector->Connect(offer, guest.regions(), In(10s)));
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "transport/page_channel.h"
#include "transport/tcp/tcp_options.h"

namespace ramferry {

namespace tcp {
class TlsContext;
}

// Connect is thread-safe.
class TcpConnector final : public ChannelConnector {
 public:
  // With encryption: reads the PEM files of `options`.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<TcpConnector>> Create(
      const TcpOptions& options);

  [[nodiscard]] std::string transport() const override {
    return options_.encryption ? "tcp-tls" : "tcp";
  }

  // Also ports of DPDK, which are nothing but another TCP.
  [[nodiscard]] std::vector<std::string> takes() const override {
    return options_.encryption ? std::vector<std::string>{"dpdk-tls", "tcp-tls"}
                               : std::vector<std::string>{"dpdk", "tcp"};
  }

  // `offer.address` must be filled in. FailedPrecondition: one end wants encryption and the other
  // does not.
  [[nodiscard]] absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> Connect(
      const ChannelOffer& offer, std::span<const MappedRegion> source, Deadline deadline) override;
  [[nodiscard]] std::vector<std::string> NicsTo(const ChannelOffer& offer) override;
  void PlaceChannels(std::vector<ChannelPlace> places) override { places_ = std::move(places); }

 private:
  TcpConnector(TcpOptions options, std::shared_ptr<const tcp::TlsContext> tls);

  TcpOptions options_;
  std::shared_ptr<const tcp::TlsContext> tls_;  // null: no encryption
  std::vector<ChannelPlace> places_;
};

}  // namespace ramferry
