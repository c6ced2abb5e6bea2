// What the RDMA transport needs of a device, so that tests can stand in for one.
//
// Link: one reliable-connected queue pair and its completion queue, connected. Memory: one
// protection domain, in which memory is registered. The real ones are in cm_link.h; the work
// requests and completions are libibverbs' own (ibv_post_send(3), ibv_poll_cq(3)).
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"

namespace ramferry::rdma {

class Memory;

// Registered memory; given back when this goes. Must not outlive its Memory, nor go while a work
// request that names it is in flight.
class Registration {
 public:
  Registration() = default;
  Registration(Memory* memory, void* handle, uint32_t lkey, uint32_t rkey)
      : memory_(memory), handle_(handle), lkey_(lkey), rkey_(rkey) {}
  Registration(Registration&& other) noexcept { *this = std::move(other); }
  Registration& operator=(Registration&& other) noexcept;
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;
  ~Registration() { Reset(); }

  void Reset();
  [[nodiscard]] bool valid() const { return memory_ != nullptr; }
  [[nodiscard]] uint32_t lkey() const { return lkey_; }
  [[nodiscard]] uint32_t rkey() const { return rkey_; }

 private:
  Memory* memory_ = nullptr;
  void* handle_ = nullptr;
  uint32_t lkey_ = 0;
  uint32_t rkey_ = 0;
};

enum class Access {
  kLocalRead,    // source of writes and sends; the mapping may be read-only
  kLocalWrite,   // receives
  kRemoteWrite,  // the peer writes here
};

// Thread-safe.
class Memory {
 public:
  virtual ~Memory() = default;
  // Pins the pages. ResourceExhausted when the device or RLIMIT_MEMLOCK has no room for them.
  [[nodiscard]] virtual absl::StatusOr<Registration> Register(const std::byte* address,
                                                              uint64_t length, Access access) = 0;
  [[nodiscard]] virtual uint64_t largest_registration() const = 0;
  [[nodiscard]] virtual size_t most_registrations() const = 0;

 private:
  friend class Registration;
  virtual void Deregister(void* handle) = 0;
};

inline void Registration::Reset() {
  if (memory_ != nullptr) std::exchange(memory_, nullptr)->Deregister(handle_);
}

inline Registration& Registration::operator=(Registration&& other) noexcept {
  if (this != &other) {
    Reset();
    memory_ = std::exchange(other.memory_, nullptr);
    handle_ = other.handle_;
    lkey_ = other.lkey_;
    rkey_ = other.rkey_;
  }
  return *this;
}

struct LinkLimits {
  uint32_t send_depth = 0;     // work requests that may be in flight
  uint32_t receive_depth = 0;  // receives that may be posted
  uint64_t largest_message = 0;
  uint32_t path_mtu = 0;  // payload bytes of a packet
};

// Used by one thread at a time, except Interrupt.
class Link {
 public:
  virtual ~Link() = default;
  [[nodiscard]] virtual const LinkLimits& limits() const = 0;

  // One doorbell for the whole chain. The caller keeps within send_depth.
  [[nodiscard]] virtual absl::Status Post(ibv_send_wr* chain) = 0;
  [[nodiscard]] virtual absl::Status PostReceive(ibv_recv_wr* chain) = 0;

  // Takes completions, none when there are none. Once the link has failed (interrupted, port down,
  // peer gone) and no completion is left: the reason.
  [[nodiscard]] virtual absl::StatusOr<size_t> Poll(std::span<ibv_wc> completions) = 0;

  // Sleeps until Poll may have something to say, or the deadline.
  virtual void Wait(Deadline deadline) = 0;

  // Makes the link fail with `reason`; the first reason counts. Thread-safe.
  virtual void Interrupt(absl::Status reason) = 0;
};

}  // namespace ramferry::rdma
