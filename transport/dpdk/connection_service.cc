// The polling thread's side of a connection. No header of DPDK may come in here.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "transport/dpdk/connection.h"

extern "C" {
#include <lwip/opt.h>
#include <lwip/pbuf.h>
#include <lwip/tcp.h>
}

namespace ramferry::dpdk {
namespace {

using namespace std::chrono_literals;

// What lwIP may hold of what was sent and not acknowledged. Its build has 64 KiB in mind; more
// than this, and the lists that it walks for every segment get long.
constexpr uint32_t kUnacknowledged = 256 * 1024;
// How long a connection that nobody owns any more may take to send its last bytes.
constexpr auto kLinger = 1s;
// The most that tcp_write takes at a time.
constexpr size_t kMostAtOnce = 32 * 1024;
// Once so little is left of lwIP's list it takes no more.
constexpr uint16_t kMostQueued = TCP_SND_QUEUELEN - 8;

}  // namespace

Connection::~Connection() = default;

void Connection::FreeHeld() {
  for (const Held& held : held_) ::pbuf_free(held.chain);
  held_.clear();
}

void Connection::Cut() {
  if (pcb_ != nullptr) {
    ::tcp_arg(pcb_, nullptr);
    ::tcp_err(pcb_, nullptr);
    ::tcp_abort(pcb_);
  }
  FreeHeld();
  finished_ = true;
  Lose(absl::UnavailableError("the DPDK port is closed"));
}

void Connection::Attach(tcp_pcb* pcb, std::chrono::milliseconds silence) {
  pcb_ = pcb;
  silence_ = silence;
}

void Connection::Establish(tcp_pcb* pcb, uint32_t mss, std::chrono::milliseconds silence) {
  pcb_ = pcb;
  pcb->mss = static_cast<uint16_t>(mss);
  pcb->cwnd = 10 * mss;  // RFC 6928
  pcb->ssthresh = kUnacknowledged;
  pcb->snd_buf += kUnacknowledged - TCP_SND_BUF;
  tcp_nagle_disable(pcb);
  // A peer that is silent for this long is gone, whether there is something to send or not.
  ip_set_option(pcb, SOF_KEEPALIVE);
  pcb->keep_idle = static_cast<uint32_t>(silence.count() / 2);
  pcb->keep_intvl = 1000;
  pcb->keep_cnt = static_cast<uint32_t>(std::max<int64_t>(silence.count() / 2000, 1));
  established_.store(true);
  Notify();
}

bool Connection::TakeIn(pbuf* chain) {
  if (chain == nullptr) {
    peer_ended_.store(true);
    Notify();
    return true;
  }
  size_t at = pieces_written_.load(std::memory_order_relaxed);
  const size_t room = kPieces - (at - pieces_read_.load(std::memory_order_acquire));
  if (::pbuf_clen(chain) > room) return false;
  for (const pbuf* part = chain; part != nullptr; part = part->next) {
    if (part->len == 0) continue;
    pieces_[at++ % kPieces] = {static_cast<const std::byte*>(part->payload), part->len};
  }
  came_ += chain->tot_len;
  held_.push_back({chain, came_});
  pieces_written_.store(at);
  Notify();
  return true;
}

void Connection::Lose(absl::Status why) {
  pcb_ = nullptr;
  {
    const std::lock_guard lock(mutex_);
    why_lost_ = std::move(why);
  }
  lost_.store(true);
  Notify();
}

bool Connection::FreeUsed() {
  const uint64_t used = used_.load(std::memory_order_acquire);
  if (used == told_) return false;
  while (!held_.empty() && held_.front().end <= used) {
    ::pbuf_free(held_.front().chain);
    held_.pop_front();
  }
  while (pcb_ != nullptr && told_ < used) {
    const auto part = static_cast<uint16_t>(std::min<uint64_t>(used - told_, 0xffff));
    ::tcp_recved(pcb_, part);
    told_ += part;
  }
  told_ = used;
  return true;
}

bool Connection::PumpOut() {
  bool moved = false;
  while (pcb_ != nullptr && pcb_->snd_queuelen < kMostQueued) {
    const std::span<const std::byte> bytes = out_.Peek();
    size_t count = std::min({bytes.size(), size_t{tcp_sndbuf(pcb_)}, kMostAtOnce});
    // Whole segments, unless these are the last bytes for now.
    if (count > pcb_->mss && count < bytes.size()) count -= count % pcb_->mss;
    if (count == 0 || (count < bytes.size() && count < pcb_->mss)) break;
    if (::tcp_write(pcb_, bytes.data(), static_cast<uint16_t>(count), TCP_WRITE_FLAG_COPY) !=
        ERR_OK) {
      break;  // its list is full: later
    }
    out_.Skip(count);
    moved = true;
  }
  if (moved) {
    ::tcp_output(pcb_);
    Notify();
  }
  return moved;
}

void Connection::Close() {
  if (pcb_ == nullptr) return;
  ::tcp_arg(pcb_, nullptr);
  ::tcp_recv(pcb_, nullptr);
  ::tcp_sent(pcb_, nullptr);
  ::tcp_err(pcb_, nullptr);
  if (::tcp_close(pcb_) != ERR_OK) ::tcp_abort(pcb_);
  pcb_ = nullptr;
}

bool Connection::Service() {
  if (finished_) return false;
  if (abort_wanted_.load() && pcb_ != nullptr) {
    tcp_pcb* const pcb = pcb_;
    ::tcp_arg(pcb, nullptr);
    ::tcp_err(pcb, nullptr);
    ::tcp_abort(pcb);
    Lose(absl::CancelledError("aborted"));
  }
  bool busy = FreeUsed();
  if (established_.load(std::memory_order_relaxed)) busy |= PumpOut();
  const bool all_out = pcb_ == nullptr || out_.empty();
  if (end_wanted_.load() && !end_sent_ && pcb_ != nullptr && all_out) {
    end_sent_ = ::tcp_shutdown(pcb_, 0, 1) == ERR_OK;
  }
  if (left_.load()) {
    if (linger_until_ == Deadline{}) linger_until_ = In(kLinger);
    // Unacknowledged bytes stay with lwIP after the close.
    if (all_out || Clock::now() >= linger_until_) {
      Close();
      FreeHeld();
      finished_ = true;
    }
  }
  return busy;
}

}  // namespace ramferry::dpdk
