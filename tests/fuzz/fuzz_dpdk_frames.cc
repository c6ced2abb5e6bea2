// What the network can send to a DPDK port: frames of any kind, and TCP connections to and from it
// whose segments come torn, twice, late, with odd options and flags. One thread plays the network,
// the polling thread and the connections' owner.
//
// What an owner is given is what was sent, in its order; every frame buffer comes back, once; what
// leaves has right checksums and announces the segment size of the port; half-open connections stay
// bounded.
//
// Input: operations, each a byte that chooses and what it needs.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "transport/dpdk/checksum.h"
#include "transport/dpdk/poller.h"
#include "transport/dpdk/stack.h"
#include "transport/dpdk/syn_mss.h"
#include "transport/dpdk/wire.h"

extern "C" {
#include <lwip/etharp.h>
#include <lwip/ip4_frag.h>
#include <lwip/netif.h>
#include <lwip/opt.h>
#include <lwip/priv/tcp_priv.h>
}

namespace {

using namespace ramferry;
using namespace ramferry::dpdk;

constexpr size_t kMostOperations = 400;
constexpr uint16_t kMtu = 1500;
constexpr unsigned kVlan = 7;
constexpr uint16_t kDoor = 4711;
constexpr size_t kPeers = 8;  // the first half calls, the second is called
constexpr size_t kEthernet = 14;
constexpr size_t kIpHeader = 20;
constexpr size_t kTcpHeader = 20;
constexpr uint8_t kFin = 1, kSyn = 2, kRst = 4, kAck = 16;
constexpr uint32_t kNetworkAddress = 0x0a630001;  // 10.99.0.1
constexpr uint32_t kPortAddress = 0x0a630002;

void Must(bool condition) {
  if (!condition) std::abort();
}

void Put(std::vector<std::byte>& bytes, uint64_t value, size_t count) {
  while (count-- > 0) bytes.push_back(static_cast<std::byte>(value >> (8 * count)));
}
uint32_t Get(std::span<const std::byte> bytes, size_t at, size_t count) {
  uint32_t value = 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | std::to_integer<uint32_t>(bytes[at + i]);
  return value;
}
void Set(std::vector<std::byte>& bytes, size_t at, uint16_t value) {
  bytes[at] = static_cast<std::byte>(value >> 8);
  bytes[at + 1] = static_cast<std::byte>(value & 0xff);
}
// RFC 1071, word by word.
uint16_t Checksum(std::span<const std::byte> bytes, uint32_t sum = 0) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    sum += std::to_integer<uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}
// With the pseudo header; `packet` begins with the IP header.
uint16_t TcpChecksum(std::span<const std::byte> packet) {
  const auto tcp = packet.subspan(kIpHeader);
  uint32_t sum = 6 + static_cast<uint32_t>(tcp.size());
  for (size_t at = 12; at < 20; at += 2) sum += Get(packet, at, 2);
  return Checksum(tcp, sum);
}

// The byte at this place of every stream.
std::byte StreamByte(uint64_t at) {
  return static_cast<std::byte>(at * 31 + (at >> 8));
}

// How one side of a connection is known to the network.
struct Peer {
  uint16_t own_port = 0;    // the network's
  uint16_t stack_port = 0;  // 0: not known yet
  uint32_t stack_next = 0;  // the sequence number that it sends next
  [[nodiscard]] uint32_t first() const { return own_port * 1000U; }  // of the network's own
};

class Network final : public Wire {
 public:
  Network() { Forget(); }
  // As if nothing had been said yet.
  void Forget() {
    coming_.clear();
    peers = {};
    for (size_t i = 0; i < kPeers; ++i) {
      peers[i].own_port = static_cast<uint16_t>(2000 + i);
      if (i < kPeers / 2) peers[i].stack_port = kDoor;
    }
  }

  [[nodiscard]] MacAddress mac() const override { return {2, 0, 0, 0, 0, 2}; }
  [[nodiscard]] std::string name() const override { return "network"; }
  size_t Receive(std::span<Frame> frames) override {
    size_t count = 0;
    while (count < frames.size() && !coming_.empty()) {
      Must(Allocate(static_cast<uint32_t>(coming_.front().size()), frames[count]));
      std::copy(coming_.front().begin(), coming_.front().end(), frames[count].data);
      coming_.pop_front();
      ++count;
    }
    return count;
  }
  bool Allocate(uint32_t length, Frame& frame) override {
    // Of exactly its length, so that reading on is noticed.
    auto buffer = std::make_unique<Buffer>();
    buffer->bytes.resize(length);
    frame = {buffer->bytes.data(), length, buffer.get(), buffer->room.data()};
    buffers_.insert(std::move(buffer));
    return true;
  }
  void Send(const Frame& frame) override {
    std::vector<std::byte> bytes(frame.data, frame.data + frame.length);
    Free(frame.buffer);
    Must(bytes.size() >= kEthernet + 4 && Get(bytes, 12, 2) == 0x8100 &&
         Get(bytes, 14, 2) == kVlan);
    bytes.erase(bytes.begin() + 12, bytes.begin() + 16);
    if (Get(bytes, 12, 2) == 0x0806) return AnswerArp(bytes);
    if (Get(bytes, 12, 2) == 0x0800) Learn(bytes);
  }
  void Flush() override {}
  void Free(void* buffer) override {
    const auto found = std::find_if(buffers_.begin(), buffers_.end(),
                                    [buffer](const auto& held) { return held.get() == buffer; });
    Must(found != buffers_.end());
    buffers_.erase(found);
  }
  [[nodiscard]] const WireCounters& counters() const override { return counters_; }
  [[nodiscard]] uint64_t missed() const override { return 0; }

  [[nodiscard]] size_t held() const { return buffers_.size(); }

  void Come(std::vector<std::byte> frame) { coming_.push_back(std::move(frame)); }
  void ComePacket(uint8_t protocol, uint32_t source, uint16_t fragment,
                  std::span<const std::byte> payload, bool tagged) {
    std::vector<std::byte> packet;
    Put(packet, 0x4500, 2);
    Put(packet, kIpHeader + payload.size(), 2);
    Put(packet, 1, 2);
    Put(packet, fragment, 2);
    Put(packet, 64, 1);
    Put(packet, protocol, 1);
    Put(packet, 0, 2);
    Put(packet, source, 4);
    Put(packet, kPortAddress, 4);
    Set(packet, 10, Checksum(packet));
    packet.insert(packet.end(), payload.begin(), payload.end());
    if (protocol == 6 && payload.size() >= kTcpHeader) {
      Set(packet, kIpHeader + 16, 0);
      Set(packet, kIpHeader + 16, TcpChecksum(packet));
    }
    std::vector<std::byte> frame = EthernetTo(0x0800, tagged);
    frame.insert(frame.end(), packet.begin(), packet.end());
    Come(std::move(frame));
  }
  // `options` are padded. The payload is what the stream holds from `at` on.
  void ComeSegment(const Peer& peer, uint8_t flags, uint32_t sequence, uint32_t acknowledged,
                   uint16_t window, std::span<const std::byte> options, uint64_t at,
                   size_t length) {
    std::vector<std::byte> segment;
    Put(segment, peer.own_port, 2);
    Put(segment, peer.stack_port, 2);
    Put(segment, sequence, 4);
    Put(segment, acknowledged, 4);
    Put(segment, ((kTcpHeader + options.size() + 3) / 4) << 4, 1);
    Put(segment, flags, 1);
    Put(segment, window, 2);
    Put(segment, 0, 4);
    segment.insert(segment.end(), options.begin(), options.end());
    while (segment.size() % 4 != 0) Put(segment, 0, 1);
    for (size_t i = 0; i < length; ++i) segment.push_back(StreamByte(at + i));
    ComePacket(6, kNetworkAddress, 0, segment, true);
  }

  std::array<Peer, kPeers> peers{};

 private:
  struct Buffer {
    alignas(16) std::array<std::byte, kFrameRoom> room{};
    std::vector<std::byte> bytes;
  };

  static std::vector<std::byte> EthernetTo(uint16_t type, bool tagged) {
    std::vector<std::byte> frame;
    Put(frame, 0x020000000002, 6);
    Put(frame, 0x020000000001, 6);
    if (tagged) Put(frame, 0x81000000 | kVlan, 4);
    Put(frame, type, 2);
    return frame;
  }
  void AnswerArp(std::span<const std::byte> request) {
    if (request.size() < kEthernet + 28 || Get(request, kEthernet + 6, 2) != 1) return;
    std::vector<std::byte> reply = EthernetTo(0x0806, true);
    Put(reply, 0x0001080006040002, 8);
    Put(reply, 0x020000000001, 6);
    Put(reply, Get(request, kEthernet + 24, 4), 4);
    Put(reply, 0x020000000002, 6);
    Put(reply, kPortAddress, 4);
    Come(std::move(reply));
  }
  // What the stack says of its connections.
  void Learn(std::span<const std::byte> frame) {
    auto packet = frame.subspan(kEthernet);
    Must(packet.size() >= kIpHeader && packet.size() >= Get(packet, 2, 2));
    packet = packet.first(Get(packet, 2, 2));
    Must(Checksum(packet.first(kIpHeader)) == 0);
    if (Get(packet, 9, 1) != 6) return;
    Must(packet.size() >= kIpHeader + kTcpHeader && TcpChecksum(packet) == 0);
    const auto tcp = packet.subspan(kIpHeader);
    const uint32_t flags = Get(tcp, 13, 1);
    if ((flags & kSyn) != 0) {
      const auto syn = ReadSyn(frame);
      Must(syn.has_value() && syn->mss == kMtu - 40);
    }
    for (Peer& peer : peers) {
      if (peer.own_port != Get(tcp, 2, 2)) continue;
      if ((flags & kSyn) != 0) peer.stack_port = static_cast<uint16_t>(Get(tcp, 0, 2));
      if (peer.stack_port != Get(tcp, 0, 2) || (flags & kRst) != 0) continue;
      const size_t length = tcp.size() - (Get(tcp, 12, 1) >> 4) * 4;
      peer.stack_next =
          Get(tcp, 4, 4) + static_cast<uint32_t>(length) + ((flags & (kSyn | kFin)) != 0 ? 1 : 0);
    }
  }

  WireCounters counters_;
  std::deque<std::vector<std::byte>> coming_;
  std::set<std::unique_ptr<Buffer>> buffers_;
};

class NobodySleeps final : public Waker {
 public:
  void Wake() override {}
};

// One for all inputs: lwIP is set up once in a process.
struct Port {
  Port() {
    DpdkOptions options;
    options.address = "10.99.0.2/24";
    options.vlan = kVlan;
    options.mtu = kMtu;
    stack = *Stack::Create(waker, network, options);
    listening = stack->Listen(kDoor, std::chrono::seconds(5))->first;
  }
  NobodySleeps waker;
  Network network;
  std::unique_ptr<Stack> stack;
  std::shared_ptr<Listening> listening;
};

// The owner of a connection, and how much of the stream it has used.
struct Owner {
  std::shared_ptr<Connection> connection;
  uint64_t used = 0;

  // What came must be what was sent; `give` bytes of it at most are used.
  void Look(size_t give) {
    std::vector<std::span<const std::byte>> pieces;
    connection->Borrow(pieces);
    uint64_t at = used;
    for (const auto piece : pieces) {
      for (const std::byte byte : piece) Must(byte == StreamByte(at++));
    }
    give = std::min<size_t>(give, at - used);
    connection->GiveBack(give);
    used += give;
  }
};

class Play {
 public:
  Play(Port& port, std::span<const std::byte> input) : port_(port), input_(input) {
    port_.network.Forget();
  }
  ~Play() {
    owners_.clear();
    port_.stack->CutAll();
    (void)port_.listening->Take();
    // Those that nobody has accepted yet, or whose end the network has not confirmed.
    while (tcp_active_pcbs != nullptr) ::tcp_abort(tcp_active_pcbs);
    while (tcp_tw_pcbs != nullptr) ::tcp_abort(tcp_tw_pcbs);
    // Fragments whose rest never came, and what waits for an answer to ARP.
    for (int i = 0; i <= IP_REASS_MAXAGE; ++i) ::ip_reass_tmr();
    ::etharp_cleanup_netif(netif_default);
    Must(port_.network.held() == 0);
  }
  Play(const Play&) = delete;
  Play& operator=(const Play&) = delete;

  void Run() {
    for (size_t i = 0; i < kMostOperations && !input_.empty(); ++i) {
      const uint8_t what = Byte();
      Do(what % 8);
      if ((what & 0x80U) == 0) Turn();  // else several frames come at once
      Must(Stack::HalfOpen() <= Stack::kMostHalfOpen);
    }
  }

 private:
  uint8_t Byte() {
    if (input_.empty()) return 0;
    const auto byte = std::to_integer<uint8_t>(input_[0]);
    input_ = input_.subspan(1);
    return byte;
  }
  uint16_t Short() { return static_cast<uint16_t>(Byte() << 8 | Byte()); }
  std::span<const std::byte> Bytes(size_t most) {
    const auto bytes = input_.first(std::min(most, input_.size()));
    input_ = input_.subspan(bytes.size());
    return bytes;
  }
  Peer& AnyPeer() { return port_.network.peers[Byte() % kPeers]; }

  void Turn() {
    (void)port_.stack->Turn();
    for (Listening::Arrival& arrival : port_.listening->Take()) {
      owners_.push_back({std::move(arrival.connection)});
    }
    for (Owner& owner : owners_) owner.Look(0);
  }

  void Do(uint8_t what) {
    Network& network = port_.network;
    switch (what) {
      case 0: {  // opens a connection, or answers one
        const Peer& peer = AnyPeer();
        const bool called = peer.own_port >= network.peers[kPeers / 2].own_port;
        const auto options = Bytes(Byte() % 41);
        network.ComeSegment(peer, called ? kSyn | kAck : kSyn, peer.first(), peer.stack_next, 60000,
                            options, 0, 0);
        break;
      }
      case 1: {  // a whole handshake, as of an honest peer
        const Peer& peer = network.peers[Byte() % (kPeers / 2)];
        network.ComeSegment(peer, kSyn, peer.first(), 0, 60000, {}, 0, 0);
        Turn();
        network.ComeSegment(peer, kAck, peer.first() + 1, peer.stack_next, 60000, {}, 0, 0);
        break;
      }
      case 2:
      case 3: {  // some of the stream, at any place of it
        const Peer& peer = AnyPeer();
        const uint64_t at = Byte() * (what == 2 ? 16U : 777U);
        const size_t length = Byte() * 5U;
        const uint8_t flags = kAck | (Byte() & 0xe9U);  // no SYN, no RST
        network.ComeSegment(peer, flags, peer.first() + 1 + static_cast<uint32_t>(at),
                            peer.stack_next, 60000, {}, at, length);
        break;
      }
      case 4: {  // any header
        const Peer& peer = AnyPeer();
        const uint8_t flags = Byte();
        const auto away = static_cast<int8_t>(Byte());
        const auto sequence = (flags & kSyn) != 0 ? 0 : away;  // where the stream begins stays
        const auto acknowledged = static_cast<int8_t>(Byte());
        const uint16_t window = Short();
        const auto options = Bytes(Byte() % 41);
        network.ComeSegment(peer, flags, peer.first() + static_cast<uint32_t>(sequence),
                            peer.stack_next + static_cast<uint32_t>(acknowledged), window, options,
                            0, 0);
        break;
      }
      case 5: {  // any packet of another host, any frame
        const uint8_t protocol = Byte();
        const uint16_t fragment = Short();
        const bool tagged = (Byte() & 1) != 0;
        const auto payload = Bytes(Short() % 1480);
        if (protocol == 255) {  // many that begin and never go on
          Flood(fragment % 300);
        } else if (protocol != 0) {
          network.ComePacket(protocol, kNetworkAddress + 8, fragment, payload, tagged);
        } else {
          std::vector<std::byte> frame(payload.begin(), payload.end());
          NotOfThePeers(frame);
          network.Come(std::move(frame));
        }
        break;
      }
      case 6:  // the owner calls somebody
        if (owners_.size() < 32) {
          const uint16_t to = network.peers[kPeers / 2 + Byte() % (kPeers / 2)].own_port;
          auto connection = port_.stack->Connect("10.99.0.1", to, std::chrono::seconds(5));
          if (connection.ok()) owners_.push_back({*std::move(connection)});
        }
        break;
      default:
        if (!owners_.empty()) Use(owners_[Byte() % owners_.size()]);
    }
  }

  void Flood(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const Peer stranger{.own_port = static_cast<uint16_t>(10000 + i), .stack_port = kDoor};
      port_.network.ComeSegment(stranger, kSyn, 0, 0, 60000, {}, 0, 0);
    }
  }

  void Use(Owner& owner) {
    static constexpr std::array<std::byte, 4096> kWords{};
    switch (Byte() % 6) {
      case 0:
        owner.Look(Byte());
        break;
      case 1:
        owner.Look(Short());
        break;
      case 2:
        (void)owner.connection->Send(std::span(kWords).first(Byte() * 16U));
        break;
      case 3:
        owner.connection->EndSending();
        break;
      case 4:
        owner.connection->Abort();
        break;
      default:
        owner.connection->Leave();
        std::swap(owner, owners_.back());
        owners_.pop_back();
    }
  }

  // Whoever could forge a peer's segments could say anything in its name.
  static void NotOfThePeers(std::vector<std::byte>& frame) {
    for (const size_t ip_at : {kEthernet, kEthernet + 4}) {
      if (frame.size() >= ip_at + 16 && Get(frame, ip_at + 12, 4) == kNetworkAddress) {
        frame[ip_at + 15] = std::byte{9};
      }
    }
  }

  Port& port_;
  std::span<const std::byte> input_;
  std::vector<Owner> owners_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Port& port = *new Port;
  const std::span input(reinterpret_cast<const std::byte*>(data), size);
  // A frame that we would send, were it ours to send: the size in it is set, and nothing beside it.
  std::vector<std::byte> frame(input.begin(), input.end());
  AnnounceMss(frame, 1234);
  Must(frame.size() == size);
  if (const auto syn = ReadSyn(frame); syn.has_value() && syn->mss_at != 0) Must(syn->mss == 1234);
  Play(port, input).Run();
  return 0;
}
