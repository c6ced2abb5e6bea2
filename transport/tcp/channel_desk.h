// Where connections that want to be page channels show their tokens, at the destination: the part
// of a listener that does not care which TCP the connections came by.
//
//   ChannelDesk desk(options, tls);
//   ASSIGN_OR_RETURN(auto receiver, desk.Expect(regions, places, {.transport = "tcp", ...}));
//   desk.Admit(std::move(stream), "192.0.2.1:4711");   // for every connection that comes
//
// A connection that has no valid token, uses one twice, or says nothing in time is closed with a
// log line; no more than kMostUnproven are held at a time, the oldest goes first.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "transport/page_channel.h"
#include "transport/tcp/byte_stream.h"
#include "transport/tcp/tcp_options.h"

namespace ramferry::tcp {

class TlsContext;
class TokenRegistry;

class ChannelDesk {
 public:
  static constexpr size_t kMostUnproven = 64;
  static constexpr size_t kMostChannels = 64;  // of one migration

  // `tls` null: no encryption.
  ChannelDesk(TcpOptions options, std::shared_ptr<const TlsContext> tls);
  // Ends those that have proven nothing yet. Receivers may live longer; they then get no new
  // connections.
  ~ChannelDesk();
  ChannelDesk(const ChannelDesk&) = delete;
  ChannelDesk& operator=(const ChannelDesk&) = delete;

  // As ChannelListener says; completes the offer by tokens and encryption. Thread-safe.
  [[nodiscard]] absl::StatusOr<std::unique_ptr<ChannelReceiver>> Expect(
      std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels,
      ChannelOffer offer);

  // Takes a connection and asks it for its token, in a thread of its own. `peer` names it in
  // messages. Always called by the same thread.
  void Admit(std::unique_ptr<ByteStream> stream, const std::string& peer);

 private:
  // A connection that has not proven anything yet, and the thread that asks it to.
  struct Unproven {
    std::thread thread;
    UniqueFd interrupt;  // an eventfd: readable when the thread shall give up
    std::atomic<bool> done{false};
  };

  void Prove(std::unique_ptr<ByteStream> stream, const std::string& peer, int interrupt_fd);
  absl::Status Introduce(std::unique_ptr<ByteStream> stream, const std::string& peer,
                         int interrupt_fd);

  const TcpOptions options_;
  const std::shared_ptr<const TlsContext> tls_;
  const std::shared_ptr<TokenRegistry> tokens_;
  std::list<Unproven> unproven_;  // oldest first; only the admitting thread uses it
};

}  // namespace ramferry::tcp
