// The owner's side of a connection; the polling thread's is in connection_service.cc.
#include "transport/dpdk/connection.h"

#include <sys/eventfd.h>

#include "base/status.h"
#include "transport/tcp/byte_stream.h"
#include "transport/tcp/event.h"

namespace ramferry::dpdk {
namespace {

// Enough that the polling thread has work while the owner collects the next pages, and small enough
// to stay in the cache that both share.
constexpr size_t kOutBytes = 256 * 1024;
// Little room is not worth a call: the owner would copy by the packet.
constexpr size_t kWorthwhile = kOutBytes / 4;

}  // namespace

Connection::Connection(Waker& poller)
    : poller_(poller), out_(kOutBytes), event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

size_t Connection::Send(std::span<const std::byte> bytes) {
  const size_t count = out_.Write(bytes);
  if (count > 0) poller_.Wake();
  return count;
}

void Connection::Borrow(std::vector<std::span<const std::byte>>& pieces) const {
  pieces.clear();
  size_t skip = used_of_first_;
  const size_t end = pieces_written_.load(std::memory_order_acquire);
  for (size_t i = pieces_read_.load(std::memory_order_relaxed); i != end; ++i) {
    const Piece& piece = pieces_[i % kPieces];
    pieces.emplace_back(piece.data + skip, piece.length - skip);
    skip = 0;
  }
}

void Connection::GiveBack(size_t bytes) {
  if (bytes == 0) return;
  used_of_first_ += bytes;
  size_t at = pieces_read_.load(std::memory_order_relaxed);
  while (at != pieces_written_.load(std::memory_order_acquire) &&
         used_of_first_ >= pieces_[at % kPieces].length) {
    used_of_first_ -= pieces_[at % kPieces].length;
    ++at;
  }
  pieces_read_.store(at);
  used_.store(used_.load(std::memory_order_relaxed) + bytes);
  poller_.Wake();
}

bool Connection::ended() const {
  return peer_ended_.load() && pieces_read_.load() == pieces_written_.load();
}

absl::Status Connection::status() const {
  if (!lost_.load()) return absl::OkStatus();
  const std::lock_guard lock(mutex_);
  return why_lost_;
}

bool Connection::Ready(unsigned what) const {
  if (lost_.load()) return true;
  if ((what & kData) != 0 &&
      (peer_ended_.load() || pieces_read_.load() != pieces_written_.load())) {
    return true;
  }
  return (what & kRoom) != 0 && established_.load() && out_.free() >= kWorthwhile;
}

absl::Status Connection::Wait(unsigned what, int interrupt_fd, Deadline deadline) {
  while (true) {
    tcp::ResetEvent(event_);
    waiting_.store(what);
    if (Ready(what)) {
      waiting_.store(0);
      return absl::OkStatus();
    }
    const absl::Status waited = tcp::WaitFor(event_.get(), POLLIN, interrupt_fd, deadline);
    waiting_.store(0);
    RETURN_IF_ERROR(waited);
    if (Ready(what)) return absl::OkStatus();
  }
}

void Connection::Notify() {
  // An owner that is seen awake here will see, before it sleeps, what was done before this call:
  // all of it is sequentially consistent.
  const unsigned what = waiting_.load();
  if (what == 0 || !Ready(what)) return;
  waiting_.store(0);
  tcp::SignalEvent(event_);
}

void Connection::EndSending() {
  end_wanted_.store(true);
  poller_.Wake();
}

void Connection::Abort() {
  abort_wanted_.store(true);
  poller_.Wake();
}

void Connection::Leave() {
  left_.store(true);
  poller_.Wake();
}

}  // namespace ramferry::dpdk
