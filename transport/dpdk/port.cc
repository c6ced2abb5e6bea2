// No header of lwIP may come in here: its and DPDK's names collide.
#include "transport/dpdk/port.h"

#include <fmt/format.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "transport/dpdk/eal.h"

namespace ramferry::dpdk {
namespace {

// Enough for full windows of all channels, both rings, and what waits to be acknowledged.
constexpr unsigned kBuffers = 4096;
constexpr unsigned kCachedBuffers = 256;
constexpr uint16_t kDescriptors = 1024;
// Frames of one call of the driver.
constexpr size_t kBurst = 32;
// A ring that stays full for so many tries will not empty soon: TCP sends again what is dropped.
constexpr int kMostTries = 2000;
// What a buffer holds: net_af_packet's slots (eal.cc) must fit, too.
constexpr uint16_t kSmallFrame = 2048;
constexpr uint16_t kLargeFrame = 9216;
constexpr uint32_t kEthernetHeaders = 14 + 4;  // with a VLAN tag

void Add(std::atomic<uint64_t>& counter, uint64_t value) {  // only one thread writes
  counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

class Port final : public Wire {
 public:
  Port(uint16_t id, rte_mempool* pool, std::string name)
      : id_(id), pool_(pool), name_(std::move(name)) {
    rte_ether_addr address{};
    ::rte_eth_macaddr_get(id_, &address);
    std::memcpy(mac_.data(), address.addr_bytes, mac_.size());
  }
  ~Port() override {
    for (size_t i = 0; i < queued_; ++i) ::rte_pktmbuf_free(queue_[i]);
    ::rte_eth_dev_stop(id_);
    ::rte_eth_dev_close(id_);
  }
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  MacAddress mac() const override { return mac_; }
  std::string name() const override { return name_; }

  size_t Receive(std::span<Frame> frames) override {
    rte_mbuf* buffers[kBurst];
    const auto most = static_cast<uint16_t>(std::min(frames.size(), kBurst));
    const uint16_t count = ::rte_eth_rx_burst(id_, 0, buffers, most);
    if (count == 0) return 0;
    size_t taken = 0;
    uint64_t bytes = 0;
    for (uint16_t i = 0; i < count; ++i) {
      rte_mbuf* buffer = buffers[i];
      bytes += buffer->pkt_len;
      // Buffers are as long as the longest frame: one in pieces is none of ours.
      const bool bad = (buffer->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_BAD) != 0;
      if (buffer->nb_segs != 1 || bad) {
        ::rte_pktmbuf_free(buffer);
        continue;
      }
      frames[taken++] = Describe(buffer);
      rte_prefetch0(frames[taken - 1].data);
    }
    Add(counters_.received, count);
    Add(counters_.received_bytes, bytes);
    return taken;
  }

  bool Allocate(uint32_t length, Frame& frame) override {
    rte_mbuf* buffer = ::rte_pktmbuf_alloc(pool_);
    if (buffer == nullptr) {
      Flush();  // what was sent may be free by now
      buffer = ::rte_pktmbuf_alloc(pool_);
    }
    if (buffer == nullptr ||
        ::rte_pktmbuf_append(buffer, static_cast<uint16_t>(length)) == nullptr) {
      ::rte_pktmbuf_free(buffer);
      Add(counters_.no_buffer, 1);
      return false;
    }
    frame = Describe(buffer);
    return true;
  }

  void Send(const Frame& frame) override {
    Add(counters_.sent, 1);
    Add(counters_.sent_bytes, frame.length);
    queue_[queued_++] = static_cast<rte_mbuf*>(frame.buffer);
    if (queued_ == queue_.size()) Flush();
  }

  void Flush() override {
    size_t done = 0;
    for (int tries = 0; done < queued_ && tries < kMostTries; ++tries) {
      done +=
          ::rte_eth_tx_burst(id_, 0, queue_.data() + done, static_cast<uint16_t>(queued_ - done));
      if (done < queued_) rte_pause();
    }
    Add(counters_.not_sent, queued_ - done);
    for (; done < queued_; ++done) ::rte_pktmbuf_free(queue_[done]);
    queued_ = 0;
  }

  void Free(void* buffer) override { ::rte_pktmbuf_free(static_cast<rte_mbuf*>(buffer)); }

  const WireCounters& counters() const override { return counters_; }
  uint64_t missed() const override {
    rte_eth_stats stats{};
    if (::rte_eth_stats_get(id_, &stats) != 0) return 0;
    return stats.imissed + stats.ierrors + stats.rx_nombuf;
  }

 private:
  static Frame Describe(rte_mbuf* buffer) {
    return {.data = rte_pktmbuf_mtod(buffer, std::byte*),
            .length = buffer->data_len,
            .buffer = buffer,
            .room = ::rte_mbuf_to_priv(buffer)};
  }

  const uint16_t id_;
  rte_mempool* const pool_;
  const std::string name_;
  MacAddress mac_{};
  std::array<rte_mbuf*, kBurst> queue_{};  // to be sent
  size_t queued_ = 0;
  WireCounters counters_;
};

absl::Status Refused(const DpdkOptions& options, const char* step, int error) {
  const std::string words = TakeEalWords();
  return absl::FailedPreconditionError(fmt::format("DPDK port {}: {}: {}{}{}", options.device, step,
                                                   ::rte_strerror(error < 0 ? -error : error),
                                                   words.empty() ? "" : "; DPDK says: ", words));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Wire>> OpenPort(const DpdkOptions& options) {
  const uint16_t id = static_cast<uint16_t>(::rte_eth_find_next_owned_by(0, RTE_ETH_DEV_NO_OWNER));
  if (id >= RTE_MAX_ETHPORTS) {
    return absl::FailedPreconditionError(
        fmt::format("DPDK finds no port at {}: {}", options.device, TakeEalWords()));
  }
  const uint16_t frame = options.mtu + kEthernetHeaders <= kSmallFrame ? kSmallFrame : kLargeFrame;
  const int node = ::rte_eth_dev_socket_id(id);
  rte_mempool* pool =
      ::rte_pktmbuf_pool_create("frames", kBuffers, kCachedBuffers, kFrameRoom,
                                static_cast<uint16_t>(RTE_PKTMBUF_HEADROOM + frame), node);
  if (pool == nullptr) {
    return Refused(options, "no memory for its buffers: raise dpdk.memory_mib", rte_errno);
  }
  rte_eth_dev_info info{};
  if (const int error = ::rte_eth_dev_info_get(id, &info); error != 0) {
    return Refused(options, "it does not describe itself", error);
  }
  rte_eth_conf conf{};
  // Of a virtual device the MTU is what its other end has; a real one must be told.
  const bool told = KindOf(options.device) == DeviceKind::kPci;
  if (told) conf.rxmode.mtu = options.mtu;
  if (const int error = ::rte_eth_dev_configure(id, 1, 1, &conf); error != 0) {
    return Refused(options, "it cannot be configured", error);
  }
  if (told) {
    if (const int error = ::rte_eth_dev_set_mtu(id, static_cast<uint16_t>(options.mtu));
        error != 0) {
      return Refused(options, fmt::format("it does not take MTU {}", options.mtu).c_str(), error);
    }
  }
  uint16_t incoming = kDescriptors;
  uint16_t outgoing = kDescriptors;
  ::rte_eth_dev_adjust_nb_rx_tx_desc(id, &incoming, &outgoing);
  const auto socket = static_cast<unsigned>(node);
  if (const int error = ::rte_eth_rx_queue_setup(id, 0, incoming, socket, nullptr, pool);
      error != 0) {
    return Refused(options, "no receive queue", error);
  }
  if (const int error = ::rte_eth_tx_queue_setup(id, 0, outgoing, socket, nullptr); error != 0) {
    return Refused(options, "no transmit queue", error);
  }
  if (const int error = ::rte_eth_dev_start(id); error != 0) {
    return Refused(options, "it does not start", error);
  }
  const std::string name = KindOf(options.device) == DeviceKind::kVirtual
                               ? options.device.substr(0, options.device.find(','))
                               : options.device;
  return std::make_unique<Port>(id, pool, fmt::format("{} ({})", name, info.driver_name));
}

}  // namespace ramferry::dpdk
