// One TCP connection between its owner's thread and the polling thread.
//
// lwIP belongs to the polling thread alone, so the two meet in two rings: bytes to be sent, and
// pieces that came, which lie in the port's receive buffers until the owner has used them. Who has
// nothing to do sleeps, and is woken. Sending copies twice, once on either side of the ring (lwIP's
// Debian build copies what it is given); receiving copies not at all here.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/deadline.h"
#include "base/unique_fd.h"
#include "transport/dpdk/byte_ring.h"

struct pbuf;     // lwIP's buffers
struct tcp_pcb;  // and connections

namespace ramferry::dpdk {

// The polling thread, to those who have work for it.
class Waker {
 public:
  virtual ~Waker() = default;
  // There is something to do. Thread-safe.
  virtual void Wake() = 0;
};

class Connection {
 public:
  // `poller` must outlive it.
  explicit Connection(Waker& poller);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // --- The owner's thread.
  // Bytes taken; 0: full, wait for kRoom.
  [[nodiscard]] size_t Send(std::span<const std::byte> bytes);
  // What came and was not yet given back; empty: nothing, wait for kData.
  void Borrow(std::vector<std::span<const std::byte>>& pieces) const;
  void GiveBack(size_t bytes);
  // The peer will send nothing more, and what it sent is used up.
  [[nodiscard]] bool ended() const;
  // OK, or why the connection is no more.
  [[nodiscard]] absl::Status status() const;
  [[nodiscard]] bool established() const { return established_.load(); }

  static constexpr unsigned kData = 1;  // something came, or the connection ended
  static constexpr unsigned kRoom = 2;  // Send will take something; also: it is established
  [[nodiscard]] absl::Status Wait(unsigned what, int interrupt_fd, Deadline deadline);
  void EndSending();
  // From any thread.
  void Abort();
  // The owner uses it no more. What was sent still goes out, if the peer takes it.
  void Leave();

  // --- The polling thread (connection_service.cc).
  void Establish(tcp_pcb* pcb, uint32_t mss, std::chrono::milliseconds silence);
  void Attach(tcp_pcb* pcb, std::chrono::milliseconds silence);
  [[nodiscard]] std::chrono::milliseconds silence() const { return silence_; }
  // At the end of all polling: lets go of everything at once.
  void Cut();
  // Moves what can be moved. True: there was something to do.
  bool Service();
  // lwIP says: these came (null: the peer's end). False: no room for now.
  bool TakeIn(pbuf* chain);
  // lwIP has given the connection up, and freed its own part.
  void Lose(absl::Status why);
  // Nobody needs it any more; it holds nothing of lwIP's or the port's.
  [[nodiscard]] bool finished() const { return finished_; }

 private:
  struct Piece {
    const std::byte* data = nullptr;
    uint32_t length = 0;
  };
  struct Held {  // a chain of buffers, and where in the stream it ends
    pbuf* chain = nullptr;
    uint64_t end = 0;
  };
  static constexpr size_t kPieces = 1024;  // a power of two

  [[nodiscard]] bool Ready(unsigned what) const;
  void Notify();
  bool PumpOut();
  bool FreeUsed();
  void Close();
  void FreeHeld();

  Waker& poller_;
  ByteRing out_;

  // Pieces that came: a ring that the polling thread writes and the owner reads.
  std::array<Piece, kPieces> pieces_{};
  alignas(64) std::atomic<size_t> pieces_written_{0};
  alignas(64) std::atomic<size_t> pieces_read_{0};
  size_t used_of_first_ = 0;       // bytes; the owner's
  std::atomic<uint64_t> used_{0};  // bytes given back, since the beginning

  std::atomic<bool> established_{false};
  std::atomic<bool> peer_ended_{false};
  std::atomic<bool> lost_{false};
  std::atomic<bool> end_wanted_{false};
  std::atomic<bool> abort_wanted_{false};
  std::atomic<bool> left_{false};
  std::atomic<unsigned> waiting_{0};  // what the owner sleeps for; 0: it does not
  const UniqueFd event_;              // readable: look again
  mutable std::mutex mutex_;
  absl::Status why_lost_;  // guarded by mutex_

  // The polling thread's own.
  tcp_pcb* pcb_ = nullptr;
  std::chrono::milliseconds silence_{};
  std::deque<Held> held_;
  uint64_t came_ = 0;  // bytes, since the beginning
  uint64_t told_ = 0;  // of used_, how many lwIP knows of
  bool end_sent_ = false;
  bool finished_ = false;
  Deadline linger_until_{};
};

}  // namespace ramferry::dpdk
