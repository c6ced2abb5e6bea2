// Page channels over a DPDK port, by the packaged lwIP: the protocol of transport/tcp, so either
// end may as well be the kernel's TCP.
//
//   ASSIGN_OR_RETURN(auto poller, dpdk::Poller::Get({.device = "eth1", .address =
//   "192.0.2.7/24"})); ASSIGN_OR_RETURN(auto listener, dpdk::DpdkListener::Create(poller, 0,
//   options)); ASSIGN_OR_RETURN(auto receiver, listener->Expect(regions, 4));
//
// docs/dpdk.md has the design, and what it costs.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "transport/dpdk/dpdk_options.h"
#include "transport/page_channel.h"
#include "transport/tcp/tcp_options.h"

namespace ramferry::tcp {
class ChannelDesk;
class TlsContext;
}  // namespace ramferry::tcp

namespace ramferry::dpdk {

class Listening;
class Poller;

// Opens channels to DPDK ports and to the kernel's TCP alike, as far as they can be reached by this
// host's port. Connect is thread-safe.
class DpdkConnector final : public ChannelConnector {
 public:
  // With encryption: reads the PEM files of `options`.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<DpdkConnector>> Create(
      std::shared_ptr<Poller> poller, const TcpOptions& options);

  [[nodiscard]] std::string transport() const override {
    return options_.encryption ? "dpdk-tls" : "dpdk";
  }
  [[nodiscard]] std::vector<std::string> takes() const override;
  [[nodiscard]] absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> Connect(
      const ChannelOffer& offer, std::span<const MappedRegion> source, Deadline deadline) override;
  void PlaceChannels(std::vector<ChannelPlace> places) override { places_ = std::move(places); }
  [[nodiscard]] std::vector<std::pair<std::string, uint64_t>> counters() const override;

 private:
  DpdkConnector(std::shared_ptr<Poller> poller, TcpOptions options,
                std::shared_ptr<const tcp::TlsContext> tls);

  const std::shared_ptr<Poller> poller_;
  const TcpOptions options_;
  const std::shared_ptr<const tcp::TlsContext> tls_;  // null: no encryption
  std::vector<ChannelPlace> places_;
};

// Takes channels that come to this host's port. Thread-safe.
class DpdkListener final : public ChannelListener {
 public:
  // `port` 0: any free one.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<DpdkListener>> Create(
      std::shared_ptr<Poller> poller, uint16_t port, const TcpOptions& options);
  ~DpdkListener() override;

  [[nodiscard]] std::string transport() const override {
    return options_.encryption ? "dpdk-tls" : "dpdk";
  }
  using ChannelListener::Expect;
  [[nodiscard]] absl::StatusOr<std::unique_ptr<ChannelReceiver>> Expect(
      std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels) override;

 private:
  DpdkListener(std::shared_ptr<Poller> poller, std::shared_ptr<Listening> listening, uint16_t port,
               TcpOptions options, std::shared_ptr<const tcp::TlsContext> tls);
  void Accept();

  const std::shared_ptr<Poller> poller_;
  const std::shared_ptr<Listening> listening_;
  const uint16_t port_;
  const TcpOptions options_;
  const std::unique_ptr<tcp::ChannelDesk> desk_;
  const UniqueFd stop_event_;  // readable once the listener goes
  std::thread accepting_;
};

}  // namespace ramferry::dpdk
