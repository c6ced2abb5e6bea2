#include <arpa/inet.h>
#include <netdb.h>

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "fmt/format.h"
#include "transport/rdma/cm_link.h"
#include "transport/rdma/piece_table.h"
#include "transport/rdma/pin_limit.h"
#include "transport/rdma/rdma_channel.h"
#include "transport/rdma/rdma_transport.h"
#include "transport/rdma/wire.h"

namespace ramferry::rdma {

// What the channels of one migration share on the source. The table goes before the memory.
struct SourceSide {
  std::unique_ptr<CmMemory> memory;
  std::unique_ptr<PieceTable> table;
};

namespace {

// 4.096 us * 2^18: 1.07 s without an acknowledgement, tried seven times, and the peer is gone: 8 to
// 30 s in all (a device may take up to four times as long). Less, and a busy soft-RoCE host is
// taken for a dead one.
constexpr uint8_t kAckTimeout = 18;
// Not 7, the most: soft-RoCE takes that for "for ever" (drivers/infiniband/sw/rxe/rxe_comp.c).
constexpr uint8_t kRetries = 6;

struct IdDeleter {
  void operator()(rdma_cm_id* id) const { rdma_destroy_id(id); }
};

struct Connection {
  std::unique_ptr<RdmaChannel> channel;
  Welcome welcome;
};

struct Address {
  sockaddr_storage storage{};
  [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

absl::StatusOr<Address> NumericAddress(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    return absl::InvalidArgumentError(
        fmt::format("\"{}\" is not a numeric address for RDMA channels", host));
  }
  Address address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  ::freeaddrinfo(found);
  return address;
}

// One connection of the offer: resolve, make the queue pair, prove the token, be welcomed.
absl::StatusOr<Connection> ConnectOne(const std::shared_ptr<SourceSide>& side,
                                      const RdmaOptions& options, const ChannelOffer& offer,
                                      const std::string& token, Deadline deadline,
                                      std::string& path) {
  EventChannel events(rdma_create_event_channel());
  if (!events) return ErrnoStatus(errno, "no RDMA connection manager (modprobe rdma_ucm)");
  rdma_event_channel* const channel = events.get();
  rdma_cm_id* raw = nullptr;
  if (rdma_create_id(channel, &raw, nullptr, RDMA_PS_TCP) != 0) {
    return ErrnoStatus(errno, "rdma_create_id");
  }
  std::unique_ptr<rdma_cm_id, IdDeleter> id(raw);
  if (options.traffic_class) {
    uint8_t tos = *options.traffic_class;
    if (rdma_set_option(id.get(), RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &tos, sizeof tos) != 0) {
      return ErrnoStatus(errno, fmt::format("cannot set RDMA traffic class {}", tos));
    }
  }
  // A kernel without this option (before 5.2) keeps its own, longer time.
  uint8_t ack_timeout = kAckTimeout;
  (void)rdma_set_option(id.get(), RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &ack_timeout,
                        sizeof ack_timeout);
  ASSIGN_OR_RETURN(Address to, NumericAddress(offer.address, offer.port));
  Address from;
  if (!options.address.empty()) {
    ASSIGN_OR_RETURN(from, NumericAddress(options.address, 0));
  }
  const auto await = [&](rdma_cm_event_type type) -> absl::Status {
    ASSIGN_OR_RETURN(rdma_cm_event * event, AwaitEvent(channel, type, deadline));
    rdma_ack_cm_event(event);
    return absl::OkStatus();
  };
  const int patience = MillisecondsLeft(deadline);
  if (rdma_resolve_addr(id.get(), options.address.empty() ? nullptr : from.get(), to.get(),
                        patience) != 0) {
    return ErrnoStatus(errno, "no RDMA device leads there");
  }
  RETURN_IF_ERROR(await(RDMA_CM_EVENT_ADDR_RESOLVED));
  if (id->verbs == nullptr) {
    return absl::FailedPreconditionError("no RDMA device leads there");
  }
  if (rdma_resolve_route(id.get(), patience) != 0) return ErrnoStatus(errno, "no RDMA route");
  RETURN_IF_ERROR(await(RDMA_CM_EVENT_ROUTE_RESOLVED));

  if (!side->memory) {
    ASSIGN_OR_RETURN(side->memory, CmMemory::Create(id->verbs));
  } else if (side->memory->device() != id->verbs) {
    return absl::FailedPreconditionError("the channels of one offer lead to several RDMA devices");
  }
  ASSIGN_OR_RETURN(std::unique_ptr<CmLink> link,
                   CmLink::Create(id.release(), std::move(events), *side->memory));
  CmLink* const connected = link.get();
  Connection connection;
  ASSIGN_OR_RETURN(connection.channel, RdmaChannel::Create(side, std::move(link), *side->memory));

  ASSIGN_OR_RETURN(const Greeting greeting, MakeGreeting(token));
  rdma_conn_param parameters{};
  parameters.private_data = &greeting;
  parameters.private_data_len = sizeof greeting;
  parameters.retry_count = kRetries;
  parameters.rnr_retry_count = 7;
  if (rdma_connect(connected->id(), &parameters) != 0) return ErrnoStatus(errno, "rdma_connect");
  ASSIGN_OR_RETURN(rdma_cm_event * event, AwaitEvent(channel, RDMA_CM_EVENT_ESTABLISHED, deadline));
  const auto* data = static_cast<const std::byte*>(event->param.conn.private_data);
  auto welcome = ParseWelcome({data, data == nullptr ? 0U : event->param.conn.private_data_len},
                              greeting, token);
  rdma_ack_cm_event(event);
  RETURN_IF_ERROR(welcome.status());
  connection.welcome = *welcome;
  connected->Connected();
  path = connected->Describe();
  return connection;
}

ByteCount SizeOf(std::span<const MappedRegion> regions) {
  ByteCount size;
  for (const MappedRegion& region : regions) {
    if (region.can_register) size += region.description.size;
  }
  return size;
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> RdmaConnector::Connect(
    const ChannelOffer& offer, std::span<const MappedRegion> source, Deadline deadline) {
  const ByteCount size = SizeOf(source);
  const bool limited = options_.pin_budget.value() != 0;
  RETURN_IF_ERROR(CheckPinLimit(limited ? std::min(options_.pin_budget, size) : size));

  auto side = std::make_shared<SourceSide>();
  std::vector<std::unique_ptr<RdmaChannel>> channels;
  PieceLimits limits;
  limits.budget = options_.pin_budget;
  limits.channels = offer.tokens.size();
  limits.most_pieces = kMostPieces;
  limits.largest_piece = UINT64_MAX;
  paths_.clear();
  for (const std::string& token : offer.tokens) {
    std::string path;
    auto connection = ConnectOne(side, options_, offer, token, deadline, path);
    if (!connection.ok()) {
      return Annotate(connection.status(),
                      fmt::format("RDMA to {} port {}", offer.address, offer.port));
    }
    const Welcome& welcome = connection->welcome;
    if (welcome.pin_budget != 0) {
      limits.budget = limits.budget.value() == 0
                          ? ByteCount(welcome.pin_budget)
                          : std::min(limits.budget, ByteCount(welcome.pin_budget));
    }
    limits.largest_piece = std::min(limits.largest_piece, welcome.largest_registration);
    limits.most_pieces = std::min(limits.most_pieces, welcome.most_pieces);
    channels.push_back(std::move(connection->channel));
    paths_.push_back(std::move(path));
  }
  if (channels.empty()) return absl::InvalidArgumentError("an RDMA offer without tokens");
  limits.largest_piece = std::min(limits.largest_piece, side->memory->largest_registration());
  // Some registrations are not pieces: messages and staging of every channel.
  const size_t own = 4 * channels.size();
  const size_t most = side->memory->most_registrations();
  limits.most_pieces = static_cast<uint32_t>(
      std::min<size_t>(limits.most_pieces, most > 2 * own ? most - own : own));
  ASSIGN_OR_RETURN(side->table, PieceTable::Create(source, *side->memory, limits));
  std::vector<std::unique_ptr<PageChannel>> ready;
  for (auto& channel : channels) {
    channel->UseTable(*side->table);
    ready.push_back(std::move(channel));
  }
  side_ = side;
  return ready;
}

ByteCount RdmaConnector::most_pinned() const {
  const auto side = side_.lock();
  return side && side->table ? side->table->most_pinned() : ByteCount(0);
}

}  // namespace ramferry::rdma
