// Takes page channels over TCP, at the destination: one listening socket for any number of
// migrations. A connection is led to its migration by the token it brings (tcp/handshake.h).
//
//   ASSIGN_OR_RETURN(auto listener, TcpListener::Create("192.0.2.1", 0, options));
//   ASSIGN_OR_RETURN(auto receiver, listener->Expect(reservation.regions(), 4));
//   // send receiver->offer() over the control channel
//
// Who may come, and for how long without a token: tcp/channel_desk.h.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "transport/page_channel.h"
#include "transport/tcp/tcp_options.h"

namespace ramferry {

namespace tcp {
class ChannelDesk;
class TlsContext;
}  // namespace tcp

// Thread-safe. Receivers may live longer than the listener that made them; they then take no new
// connections.
class TcpListener final : public ChannelListener {
 public:
  // Listens on a numeric address; empty: on all. Port 0: any free one.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<TcpListener>> Create(
      const std::string& address, uint16_t port, const TcpOptions& options);
  ~TcpListener() override;

  [[nodiscard]] std::string transport() const override {
    return options_.encryption ? "tcp-tls" : "tcp";
  }
  [[nodiscard]] uint16_t port() const { return port_; }

  using ChannelListener::Expect;
  [[nodiscard]] absl::StatusOr<std::unique_ptr<ChannelReceiver>> Expect(
      std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels) override;

 private:
  TcpListener(UniqueFd socket, std::string address, uint16_t port, TcpOptions options,
              std::shared_ptr<const tcp::TlsContext> tls);

  void Accept();
  void Admit(UniqueFd socket);

  const UniqueFd socket_;
  const std::string address_;
  const uint16_t port_;
  const TcpOptions options_;
  const std::unique_ptr<tcp::ChannelDesk> desk_;
  const UniqueFd stop_event_;  // readable once the listener goes
  std::thread accepting_;
};

}  // namespace ramferry
