// No header of DPDK may come in here: its and lwIP's names collide.
#include "transport/dpdk/stack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "transport/dpdk/checksum.h"
#include "transport/tcp/event.h"

extern "C" {
#include <lwip/etharp.h>
#include <lwip/init.h>
#include <lwip/netif.h>
#include <lwip/opt.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/tcp.h>
#include <lwip/timeouts.h>
#include <netif/ethernet.h>
}

namespace ramferry::dpdk {
namespace {

using namespace std::chrono_literals;

constexpr uint32_t kIpAndTcp = 40;  // bytes of headers
constexpr uint32_t kEthernet = 14;
constexpr uint32_t kVlanTag = 4;
constexpr auto kTimerStep = 1ms;
constexpr size_t kBurst = 32;
// A short frame is copied out of its buffer, so that many of them cannot take all buffers.
constexpr uint32_t kWorthKeeping = 256;
constexpr size_t kMostConnections = 512;

// What a wrapped frame keeps in its buffer's room.
struct Wrapped {
  pbuf_custom custom;
  Wire* wire;
  void* buffer;
};
static_assert(sizeof(Wrapped) <= kFrameRoom);

void FreeWrapped(pbuf* p) {
  auto* const wrapped = reinterpret_cast<Wrapped*>(p);
  wrapped->wire->Free(wrapped->buffer);
}

absl::StatusOr<ip4_addr_t> ParseAddress(const std::string& text, const char* what) {
  ip4_addr_t address{};
  if (::ip4addr_aton(text.c_str(), &address) == 0) {
    return absl::InvalidArgumentError(
        fmt::format("{} '{}' is no IPv4 address: DPDK channels know no other", what, text));
  }
  return address;
}

std::string Text(const ip_addr_t& address, uint16_t port) {
  char text[IP4ADDR_STRLEN_MAX];
  ::ip4addr_ntoa_r(ip_2_ip4(&address), text, sizeof text);
  return fmt::format("{}:{}", text, port);
}

absl::Status Explain(err_t error, bool established) {
  switch (error) {
    case ERR_RST:
      return absl::UnavailableError(established ? "the connection is lost: the peer reset it"
                                                : "the connection was refused");
    case ERR_ABRT:
    case ERR_TIMEOUT:
      return absl::UnavailableError("the connection is lost: the other host does not answer");
    case ERR_RTE:
      return absl::UnavailableError(
          "it is in another network, and there is no gateway: set dpdk.gateway");
    case ERR_MEM:
      return absl::ResourceExhaustedError("no memory for a connection");
    default:
      return absl::UnavailableError(fmt::format("the connection is lost: lwIP error {}", error));
  }
}

}  // namespace

struct Stack::Door {
  Stack* stack;
  tcp_pcb* pcb;
  uint16_t port;
  std::chrono::milliseconds silence;
  std::shared_ptr<Listening> listening;
};

// What lwIP calls. `argument` of a connection's is its Connection; of a listener's its Door.
struct Stack::Callbacks {
  static Stack& Of(netif* interface) { return *static_cast<Stack*>(interface->state); }
  static Connection& At(void* argument) { return *static_cast<Connection*>(argument); }

  static err_t Init(netif* interface) {
    const Stack& stack = Of(interface);
    const MacAddress mac = stack.wire_.mac();
    interface->name[0] = 'd';
    interface->name[1] = 'p';
    interface->output = ::etharp_output;
    interface->linkoutput = Output;
    interface->mtu = static_cast<uint16_t>(stack.options_.mtu);
    interface->hwaddr_len = static_cast<uint8_t>(mac.size());
    std::memcpy(interface->hwaddr, mac.data(), mac.size());
    interface->flags =
        NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_LINK_UP;
    return ERR_OK;
  }

  static err_t Output(netif* interface, pbuf* p) {
    Stack& stack = Of(interface);
    const uint32_t tag = stack.options_.vlan > 0 ? kVlanTag : 0;
    Frame frame;
    if (!stack.wire_.Allocate(p->tot_len + tag, frame)) return ERR_MEM;
    ::pbuf_copy_partial(p, frame.data + tag, p->tot_len, 0);
    AnnounceMss({frame.data + tag, p->tot_len},
                static_cast<uint16_t>(stack.options_.mtu - kIpAndTcp));
    if (tag > 0) {
      std::memmove(frame.data, frame.data + tag, 2 * sizeof(MacAddress));
      const uint8_t bytes[] = {0x81, 0x00, static_cast<uint8_t>(stack.options_.vlan >> 8),
                               static_cast<uint8_t>(stack.options_.vlan & 0xff)};
      std::memcpy(frame.data + 2 * sizeof(MacAddress), bytes, sizeof bytes);
    }
    stack.wire_.Send(frame);
    return ERR_OK;
  }

  static err_t Received(void* argument, tcp_pcb*, pbuf* chain, err_t) {
    return static_cast<err_t>(At(argument).TakeIn(chain) ? ERR_OK : ERR_MEM);
  }
  static void Failed(void* argument, err_t error) {
    if (argument != nullptr) At(argument).Lose(Explain(error, At(argument).established()));
  }
  static void Watch(Connection& connection, tcp_pcb* pcb) {
    ::tcp_arg(pcb, &connection);
    ::tcp_recv(pcb, Received);
    ::tcp_err(pcb, Failed);
  }

  static err_t Connected(void* argument, tcp_pcb* pcb, err_t) {
    Stack& stack = *current;
    At(argument).Establish(pcb, stack.MssOf(pcb), At(argument).silence());
    return ERR_OK;
  }

  static err_t Accepted(void* argument, tcp_pcb* pcb, err_t error) {
    if (error != ERR_OK || pcb == nullptr || argument == nullptr) return ERR_VAL;
    Door& door = *static_cast<Door*>(argument);
    Stack& stack = *door.stack;
    Listening& listening = *door.listening;
    const std::lock_guard lock(listening.mutex_);
    if (listening.arrivals_.size() >= Listening::kMostWaiting ||
        stack.connections_.size() >= kMostConnections) {
      return ERR_MEM;  // lwIP resets it
    }
    auto connection = std::make_shared<Connection>(stack.poller_);
    Watch(*connection, pcb);
    connection->Establish(pcb, stack.MssOf(pcb), door.silence);
    stack.connections_.push_back(connection);
    listening.arrivals_.push_back({connection, Text(pcb->remote_ip, pcb->remote_port)});
    tcp::SignalEvent(listening.event_);
    return ERR_OK;
  }

  static Stack* current;  // lwIP is one a process, and so are we
};
Stack* Stack::Callbacks::current = nullptr;

Stack::Stack(Waker& poller, Wire& wire, const DpdkOptions& options)
    : poller_(poller), wire_(wire), options_(options), netif_(std::make_unique<netif>()) {
  Callbacks::current = this;
}

Stack::~Stack() {
  for (const auto& door : doors_) ::tcp_close(door->pcb);
  ::netif_remove(netif_.get());
  Callbacks::current = nullptr;
}

absl::StatusOr<std::unique_ptr<Stack>> Stack::Create(Waker& poller, Wire& wire,
                                                     const DpdkOptions& options) {
  std::unique_ptr<Stack> stack(new Stack(poller, wire, options));
  RETURN_IF_ERROR(stack->SetUp());
  return stack;
}

absl::Status Stack::SetUp() {
  ::lwip_init();
  const size_t slash = options_.address.find('/');
  const std::string prefix_text =
      slash == std::string::npos ? "" : options_.address.substr(slash + 1);
  const long prefix = prefix_text.empty() ? 0 : std::strtol(prefix_text.c_str(), nullptr, 10);
  if (prefix < 1 || prefix > 31) {
    return absl::InvalidArgumentError(
        fmt::format("dpdk.address '{}' must be an IPv4 address with its prefix, as in 192.0.2.7/24",
                    options_.address));
  }
  ASSIGN_OR_RETURN(const ip4_addr_t address,
                   ParseAddress(options_.address.substr(0, slash), "dpdk.address"));
  ip4_addr_t gateway{};
  if (!options_.gateway.empty()) {
    ASSIGN_OR_RETURN(gateway, ParseAddress(options_.gateway, "dpdk.gateway"));
  }
  ip4_addr_t mask{};
  mask.addr = lwip_htonl(~uint32_t{0} << (32 - prefix));
  if (::netif_add(netif_.get(), &address, &mask, &gateway, this, Callbacks::Init,
                  ::ethernet_input) == nullptr) {
    return absl::InternalError("lwIP takes no interface");
  }
  ::netif_set_default(netif_.get());
  ::netif_set_up(netif_.get());
  return absl::OkStatus();
}

bool Stack::Turn() {
  std::array<Frame, kBurst> frames;
  const size_t count = wire_.Receive(frames);
  for (size_t i = 0; i < count; ++i) Input(frames[i]);
  bool busy = count > 0;
  bool finished = false;
  for (size_t i = 0; i < connections_.size(); ++i) {
    busy |= connections_[i]->Service();
    finished |= connections_[i]->finished();
  }
  if (finished) {
    std::erase_if(connections_, [](const auto& connection) { return connection->finished(); });
  }
  if (const Deadline now = Clock::now(); now >= next_timers_) {
    next_timers_ = now + kTimerStep;
    ::sys_check_timeouts();
  }
  wire_.Flush();
  return busy;
}

void Stack::Input(const Frame& arrived) {
  Frame frame = arrived;
  if (options_.vlan > 0 && frame.length > kEthernet + kVlanTag &&
      frame.data[12] == std::byte{0x81} && frame.data[13] == std::byte{0x00}) {
    const unsigned tag = (std::to_integer<unsigned>(frame.data[14]) & 0x0fU) << 8 |
                         std::to_integer<unsigned>(frame.data[15]);
    if (tag == options_.vlan) {
      std::memmove(frame.data + kVlanTag, frame.data, 2 * sizeof(MacAddress));
      frame.data += kVlanTag;
      frame.length -= kVlanTag;
    }
  }
  if (const auto syn = ReadSyn({frame.data, frame.length})) {
    syns_[next_syn_++ % syns_.size()] = *syn;
    MakeRoom();
  }
  pbuf* p = nullptr;
  if (frame.length < kWorthKeeping) {
    p = ::pbuf_alloc(PBUF_RAW, static_cast<uint16_t>(frame.length), PBUF_RAM);
    if (p != nullptr) ::pbuf_take(p, frame.data, static_cast<uint16_t>(frame.length));
    wire_.Free(frame.buffer);
    if (p == nullptr) return;
  } else {
    auto* const wrapped = static_cast<Wrapped*>(frame.room);
    wrapped->custom.custom_free_function = FreeWrapped;
    wrapped->wire = &wire_;
    wrapped->buffer = frame.buffer;
    p = ::pbuf_alloced_custom(PBUF_RAW, static_cast<uint16_t>(frame.length), PBUF_REF,
                              &wrapped->custom, frame.data, static_cast<uint16_t>(frame.length));
  }
  if (netif_->input(p, netif_.get()) != ERR_OK) ::pbuf_free(p);
}

size_t Stack::HalfOpen() {
  size_t count = 0;
  for (const tcp_pcb* pcb = tcp_active_pcbs; pcb != nullptr; pcb = pcb->next) {
    if (pcb->state == SYN_RCVD) ++count;
  }
  return count;
}

// Beginning a connection costs a stranger nothing, and with a made-up address not even an answer.
// lwIP would keep each for 20 s. The one that has been silent longest goes, without a word.
void Stack::MakeRoom() {
  if (HalfOpen() < kMostHalfOpen) return;
  tcp_pcb* oldest = nullptr;  // lwIP's list begins with the one that was heard last
  for (tcp_pcb* pcb = tcp_active_pcbs; pcb != nullptr; pcb = pcb->next) {
    if (pcb->state == SYN_RCVD) oldest = pcb;
  }
  ::tcp_abandon(oldest, 0);
}

uint32_t Stack::MssOf(const tcp_pcb* pcb) const {
  for (size_t i = 1; i <= syns_.size(); ++i) {  // the latest first
    const SynFrame& syn = syns_[(next_syn_ - i) % syns_.size()];
    if (syn.mss != 0 && syn.source == ip_2_ip4(&pcb->remote_ip)->addr &&
        syn.source_port == pcb->remote_port && syn.destination_port == pcb->local_port) {
      return std::min<uint32_t>(syn.mss, options_.mtu - kIpAndTcp);
    }
  }
  return std::min<uint32_t>(TCP_MSS, options_.mtu - kIpAndTcp);
}

bool Stack::quiet() const {
  if (!connections_.empty()) return false;
  for (const tcp_pcb* pcb = tcp_active_pcbs; pcb != nullptr; pcb = pcb->next) {
    if (pcb->unsent != nullptr || pcb->unacked != nullptr) return false;
  }
  return true;
}

void Stack::CutAll() {
  for (const auto& connection : connections_) connection->Cut();
  connections_.clear();
}

absl::StatusOr<std::shared_ptr<Connection>> Stack::Connect(const std::string& address,
                                                           uint16_t port,
                                                           std::chrono::milliseconds silence) {
  ASSIGN_OR_RETURN(const ip4_addr_t to, ParseAddress(address, "the destination's address"));
  tcp_pcb* const pcb = ::tcp_new_ip_type(IPADDR_TYPE_V4);
  if (pcb == nullptr) return absl::ResourceExhaustedError("no memory for a connection");
  auto connection = std::make_shared<Connection>(poller_);
  connection->Attach(pcb, silence);
  Callbacks::Watch(*connection, pcb);
  ip_addr_t remote{};
  ip_addr_copy_from_ip4(remote, to);
  const err_t error = ::tcp_connect(pcb, &remote, port, Callbacks::Connected);
  if (error != ERR_OK) {
    ::tcp_arg(pcb, nullptr);
    ::tcp_err(pcb, nullptr);
    ::tcp_abort(pcb);
    return Annotate(Explain(error, false), fmt::format("cannot connect to {}:{}", address, port));
  }
  connections_.push_back(connection);
  return connection;
}

absl::StatusOr<std::pair<std::shared_ptr<Listening>, uint16_t>> Stack::Listen(
    uint16_t port, std::chrono::milliseconds silence) {
  tcp_pcb* const pcb = ::tcp_new_ip_type(IPADDR_TYPE_V4);
  if (pcb == nullptr) return absl::ResourceExhaustedError("no memory for a connection");
  if (::tcp_bind(pcb, IP4_ADDR_ANY, port) != ERR_OK) {
    ::tcp_close(pcb);
    return absl::FailedPreconditionError(
        fmt::format("port {} of the DPDK port is taken: set another receive.page_port", port));
  }
  tcp_pcb* const listening = ::tcp_listen(pcb);
  if (listening == nullptr) {
    ::tcp_close(pcb);
    return absl::ResourceExhaustedError("no memory to listen on the DPDK port");
  }
  auto door = std::make_unique<Door>(
      Door{this, listening, listening->local_port, silence, std::make_shared<Listening>()});
  ::tcp_arg(listening, door.get());
  ::tcp_accept(listening, Callbacks::Accepted);
  doors_.push_back(std::move(door));
  return std::pair(doors_.back()->listening, doors_.back()->port);
}

void Stack::StopListening(uint16_t port) {
  std::erase_if(doors_, [port](const auto& door) {
    if (door->port != port) return false;
    ::tcp_close(door->pcb);
    return true;
  });
}

bool Stack::Knows(const std::string& address) const {
  ip4_addr_t to{};
  if (::ip4addr_aton(address.c_str(), &to) == 0) return false;
  if (!ip4_addr_netcmp(&to, netif_ip4_addr(netif_.get()), netif_ip4_netmask(netif_.get()))) {
    to = *netif_ip4_gw(netif_.get());
  }
  eth_addr* found = nullptr;
  const ip4_addr_t* known = nullptr;
  return ::etharp_find_addr(netif_.get(), &to, &found, &known) >= 0;
}

}  // namespace ramferry::dpdk
