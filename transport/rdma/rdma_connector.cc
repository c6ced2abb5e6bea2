#include <arpa/inet.h>
#include <netdb.h>

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "fmt/format.h"
#include "transport/rdma/cm_link.h"
#include "transport/rdma/needs.h"
#include "transport/rdma/piece_table.h"
#include "transport/rdma/pin_limit.h"
#include "transport/rdma/rails.h"
#include "transport/rdma/rdma_channel.h"
#include "transport/rdma/rdma_transport.h"
#include "transport/rdma/wire.h"

namespace ramferry::rdma {

// What the channels of one migration share on the source: for each device what the channels over it
// share. The tables go before the memory.
struct SourceSide {
  struct Rail {
    std::string address;  // of the destination, that this device leads to
    std::unique_ptr<CmMemory> memory;
    std::unique_ptr<PieceTable> table;
    PieceLimits limits;
  };
  std::vector<Rail> rails;
};

namespace {

// 4.096 us * 2^18: 1.07 s without an acknowledgement, tried seven times, and the peer is gone: 8 to
// 30 s in all (a device may take up to four times as long). Less, and a busy soft-RoCE host is
// taken for a dead one.
constexpr uint8_t kAckTimeout = 18;
// Not 7, the most: soft-RoCE takes that for "for ever" (drivers/infiniband/sw/rxe/rxe_comp.c).
constexpr uint8_t kRetries = 6;
// For the way to a further device of the destination to be found.
constexpr auto kRailTime = std::chrono::seconds(2);

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

// An id of ours with the device, port and GID that lead to an address.
struct Resolved {
  EventChannel events;
  std::unique_ptr<rdma_cm_id, IdDeleter> id;  // goes before its events
};

absl::StatusOr<Resolved> Resolve(const RdmaOptions& options, const std::string& address,
                                 uint16_t port, Deadline deadline) {
  Resolved resolved;
  resolved.events.reset(rdma_create_event_channel());
  if (!resolved.events) {
    return ErrnoStatus(errno, "no RDMA connection manager (modprobe rdma_ucm)");
  }
  rdma_event_channel* const channel = resolved.events.get();
  rdma_cm_id* raw = nullptr;
  if (rdma_create_id(channel, &raw, nullptr, RDMA_PS_TCP) != 0) {
    return ErrnoStatus(errno, "rdma_create_id");
  }
  resolved.id.reset(raw);
  rdma_cm_id* const id = raw;
  if (options.traffic_class) {
    uint8_t tos = *options.traffic_class;
    if (rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &tos, sizeof tos) != 0) {
      return ErrnoStatus(errno, fmt::format("cannot set RDMA traffic class {}", tos));
    }
  }
  // A kernel without this option (before 5.2) keeps its own, longer time.
  uint8_t ack_timeout = kAckTimeout;
  (void)rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &ack_timeout,
                        sizeof ack_timeout);
  ASSIGN_OR_RETURN(Address to, NumericAddress(address, port));
  Address from;
  if (!options.address.empty()) {
    ASSIGN_OR_RETURN(from, NumericAddress(options.address, 0));
  }
  const auto await = [&](rdma_cm_event_type type) -> absl::Status {
    ASSIGN_OR_RETURN(rdma_cm_event * event, AwaitEvent(channel, type, deadline, options.cancel_fd));
    rdma_ack_cm_event(event);
    return absl::OkStatus();
  };
  const int patience = MillisecondsLeft(deadline);
  if (rdma_resolve_addr(id, options.address.empty() ? nullptr : from.get(), to.get(), patience) !=
      0) {
    return ErrnoStatus(errno, "no RDMA device leads there");
  }
  RETURN_IF_ERROR(await(RDMA_CM_EVENT_ADDR_RESOLVED));
  if (id->verbs == nullptr) {
    return absl::FailedPreconditionError("no RDMA device leads there");
  }
  if (rdma_resolve_route(id, patience) != 0) return ErrnoStatus(errno, "no RDMA route");
  RETURN_IF_ERROR(await(RDMA_CM_EVENT_ROUTE_RESOLVED));
  return resolved;
}

// One connection of the offer: resolve, make the queue pair, prove the token, be welcomed.
absl::StatusOr<Connection> ConnectOne(const std::shared_ptr<SourceSide>& side,
                                      SourceSide::Rail& rail, const RdmaOptions& options,
                                      uint16_t port, const std::string& token, Deadline deadline) {
  ASSIGN_OR_RETURN(Resolved resolved, Resolve(options, rail.address, port, deadline));
  rdma_event_channel* const channel = resolved.events.get();
  if (rail.memory->device() != resolved.id->verbs) {
    return absl::UnavailableError("the way there has changed to another RDMA device");
  }
  ASSIGN_OR_RETURN(std::unique_ptr<CmLink> link,
                   CmLink::Create(resolved.id.release(), std::move(resolved.events), *rail.memory,
                                  {options.traffic_class, options.service_level}));
  CmLink* const connected = link.get();
  Connection connection;
  ASSIGN_OR_RETURN(connection.channel, RdmaChannel::Create(side, std::move(link), *rail.memory));

  ASSIGN_OR_RETURN(const Greeting greeting, MakeGreeting(token));
  rdma_conn_param parameters{};
  parameters.private_data = &greeting;
  parameters.private_data_len = sizeof greeting;
  parameters.qp_num = connected->queue_pair();
  parameters.retry_count = kRetries;
  parameters.rnr_retry_count = 7;
  if (rdma_connect(connected->id(), &parameters) != 0) return ErrnoStatus(errno, "rdma_connect");
  ASSIGN_OR_RETURN(rdma_cm_event * event, AwaitEvent(channel, RDMA_CM_EVENT_CONNECT_RESPONSE,
                                                     deadline, options.cancel_fd));
  const auto* data = static_cast<const std::byte*>(event->param.conn.private_data);
  auto welcome = ParseWelcome({data, data == nullptr ? 0U : event->param.conn.private_data_len},
                              greeting, token);
  rdma_ack_cm_event(event);
  RETURN_IF_ERROR(welcome.status());
  connection.welcome = *welcome;
  RETURN_IF_ERROR(connected->BringUp());
  if (rdma_establish(connected->id()) != 0) return ErrnoStatus(errno, "rdma_establish");
  connection.channel->SetPath(connected->Describe());
  connection.channel->ProveAtFirstFlush(connection.welcome, greeting.nonce);
  return connection;
}

// The rails to the destination: its addresses that devices of this host lead to, one a device.
// No more than there are channels, unless the `places` plan with others.
absl::Status FindRails(SourceSide& side, const RdmaOptions& options, const RdmaNeeds& needs,
                       const ChannelOffer& offer, std::span<const ChannelPlace> places,
                       Deadline deadline) {
  const auto add = [&](const std::string& address, Deadline until) -> absl::Status {
    ASSIGN_OR_RETURN(const Resolved resolved, Resolve(options, address, offer.port, until));
    for (const SourceSide::Rail& rail : side.rails) {
      if (rail.memory->device() == resolved.id->verbs) return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(auto memory, CmMemory::Create(resolved.id->verbs, options.on_demand));
    RETURN_IF_ERROR(CheckDevice(memory->limits(), needs));
    side.rails.push_back({.address = address, .memory = std::move(memory)});
    return absl::OkStatus();
  };
  const auto found = [&side](const ChannelPlace& place) {
    return place.nic.empty() ||
           std::any_of(side.rails.begin(), side.rails.end(), [&](const SourceSide::Rail& rail) {
             return place.nic == ibv_get_device_name(rail.memory->device()->device);
           });
  };
  const Ways ways = WaysOf(offer);
  absl::Status none;
  for (const std::string& address : ways.addresses) {
    if (side.rails.size() >= offer.tokens.size() &&
        std::all_of(places.begin(), places.end(), found)) {
      break;
    }
    // One that leads nowhere from here costs some time, and nothing else.
    none.Update(
        add(address, ways.addresses.size() == 1 ? deadline : std::min(deadline, In(kRailTime))));
  }
  if (!side.rails.empty()) return absl::OkStatus();
  return ways.last_resort.empty() ? none : add(ways.last_resort, deadline);
}

// The planned rail, where there is a plan and a rail by that device; else the nearest to the memory
// that the channel's worker begins with.
std::vector<size_t> RailOfEachChannel(const SourceSide& side, std::span<const MappedRegion> source,
                                      std::span<const ChannelPlace> places, size_t channels) {
  if (side.rails.size() == 1) return std::vector<size_t>(channels, 0);
  std::vector<std::string> names;
  std::vector<NumaNode> nodes;
  for (const SourceSide::Rail& rail : side.rails) {
    names.emplace_back(ibv_get_device_name(rail.memory->device()->device));
    nodes.push_back(NodeOfDevice(names.back().c_str()));
  }
  std::vector<NumaNode> memory;
  memory.reserve(channels);
  for (const ChannelPlace& place : places) {
    memory.push_back(place.memory_node >= 0 ? NumaNode(place.memory_node) : std::nullopt);
  }
  if (memory.size() != channels) memory = NodesOfShares(source, channels);
  std::vector<size_t> chosen = ChooseRails(memory, nodes, KernelNodeDistance);
  for (size_t i = 0; i < std::min(chosen.size(), places.size()); ++i) {
    const auto planned = std::find(names.begin(), names.end(), places[i].nic);
    if (planned != names.end()) chosen[i] = static_cast<size_t>(planned - names.begin());
  }
  return chosen;
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> RdmaConnector::Connect(
    const ChannelOffer& offer, std::span<const MappedRegion> source, Deadline deadline) {
  if (offer.tokens.empty()) return absl::InvalidArgumentError("an RDMA offer without tokens");
  const RdmaNeeds needs = NeedsOf(source, options_.pin_budget, offer.tokens.size());
  RETURN_IF_ERROR(CheckPinning(PinLimit(), needs));

  const auto annotate = [&](const absl::Status& status, const std::string& address) {
    return Annotate(status, fmt::format("RDMA to {} port {}", address, offer.port));
  };
  auto side = std::make_shared<SourceSide>();
  if (absl::Status status = FindRails(*side, options_, needs, offer, places_, deadline);
      !status.ok()) {
    return annotate(status, offer.address);
  }
  ByteCount budget = BudgetWithin(PinLimit(), options_.pin_budget, needs);
  std::vector<std::pair<std::unique_ptr<RdmaChannel>, SourceSide::Rail*>> channels;
  const std::vector<size_t> rails = RailOfEachChannel(*side, source, places_, offer.tokens.size());
  for (size_t i = 0; i < offer.tokens.size(); ++i) {
    SourceSide::Rail& rail = side->rails[rails[i]];
    // Queues, rings and messages are touched first here.
    const BoundForAWhile beside_its_worker(i < places_.size() ? places_[i].cpus : CpuSet());
    auto connection = ConnectOne(side, rail, options_, offer.port, offer.tokens[i], deadline);
    if (!connection.ok()) return annotate(connection.status(), rail.address);
    const Welcome& welcome = connection->welcome;
    if (welcome.pin_budget != 0) {
      budget = budget.value() == 0 ? ByteCount(welcome.pin_budget)
                                   : std::min(budget, ByteCount(welcome.pin_budget));
    }
    ++rail.limits.channels;
    rail.limits.Heed(welcome.largest_registration, welcome.most_pieces);
    channels.emplace_back(std::move(connection->channel), &rail);
  }
  for (SourceSide::Rail& rail : side->rails) {
    if (rail.limits.channels == 0) continue;
    // Each rail has its part of what may be pinned, by its channels.
    rail.limits.budget = ByteCount(budget.value() / channels.size() * rail.limits.channels);
    rail.limits.Heed(rail.memory->largest_registration(),
                     PiecesWithin(rail.memory->most_registrations(), rail.limits.channels));
    ASSIGN_OR_RETURN(rail.table, PieceTable::Create(source, *rail.memory, rail.limits));
  }
  std::vector<std::unique_ptr<PageChannel>> ready;
  for (auto& [channel, rail] : channels) {
    channel->UseTable(*rail->table);
    ready.push_back(std::move(channel));
  }
  side_ = side;
  return ready;
}

std::vector<std::string> RdmaConnector::NicsTo(const ChannelOffer& offer) {
  const Ways ways = WaysOf(offer);
  return DevicesTowards(ways.addresses);
}

ByteCount RdmaConnector::most_pinned() const {
  ByteCount bytes;
  if (const auto side = side_.lock()) {
    for (const SourceSide::Rail& rail : side->rails) {
      if (rail.table) bytes += rail.table->most_pinned();
    }
  }
  return bytes;
}

}  // namespace ramferry::rdma
