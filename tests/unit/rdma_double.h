// A scripted stand-in for two RDMA devices and the wire between them.
//
// It is unkind on purpose: the source's requests complete locally at once (or when the script
// says), long before anything has arrived; what arrives, arrives when the script delivers it.
// Everything happens in the calling thread: a script is what runs when a side would go to sleep.
#pragma once

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "transport/rdma/device_events.h"
#include "transport/rdma/verbs.h"

namespace ramferry::rdma {

class FakeMemory : public Memory {
 public:
  struct Range {
    std::byte* address;
    uint64_t length;
    Access access;
  };
  [[nodiscard]] const std::map<uint32_t, Range>& ranges() const { return ranges_; }

  absl::StatusOr<Registration> Register(const std::byte* address, uint64_t length,
                                        Access access) override {
    if (length > largest || ranges_.size() >= most) {
      return absl::ResourceExhaustedError("the double has no more registrations");
    }
    const uint32_t key = ++next_key_;
    ranges_[key] = {const_cast<std::byte*>(address), length, access};
    pinned_ += length;
    ++registrations;
    return Registration(this, reinterpret_cast<void*>(static_cast<uintptr_t>(key)), key, key);
  }
  [[nodiscard]] uint64_t largest_registration() const override { return largest; }
  [[nodiscard]] size_t most_registrations() const override { return most; }

  // Null when the key does not allow it.
  [[nodiscard]] std::byte* Find(uint32_t key, uint64_t address, uint64_t length,
                                Access access) const {
    const auto found = ranges_.find(key);
    if (found == ranges_.end() || found->second.access != access) return nullptr;
    const auto start = reinterpret_cast<uintptr_t>(found->second.address);
    if (address < start || address + length > start + found->second.length) return nullptr;
    return reinterpret_cast<std::byte*>(address);
  }
  [[nodiscard]] bool Covers(const std::byte* address) const {
    for (const auto& [key, range] : ranges_) {
      if (address >= range.address && address < range.address + range.length) return true;
    }
    return false;
  }
  [[nodiscard]] uint64_t pinned() const { return pinned_; }

  uint64_t largest = UINT64_MAX;
  size_t most = 1000;
  size_t registrations = 0;

 private:
  void Deregister(void* handle) override {
    const auto found = ranges_.find(static_cast<uint32_t>(reinterpret_cast<uintptr_t>(handle)));
    pinned_ -= found->second.length;
    ranges_.erase(found);
  }

  std::map<uint32_t, Range> ranges_;
  uint64_t pinned_ = 0;
  uint32_t next_key_ = 0;
};

class FakeLink : public Link {
 public:
  explicit FakeLink(FakeMemory& peers) : peers_(peers) {
    limits_ = {.send_depth = 64, .receive_depth = 64, .largest_message = 1 << 30, .path_mtu = 4096};
  }
  void ConnectTo(FakeLink& peer) { peer_ = &peer; }

  [[nodiscard]] const LinkLimits& limits() const override { return limits_; }

  absl::Status Post(ibv_send_wr* chain) override {
    ++doorbells;
    for (const ibv_send_wr* request = chain; request != nullptr; request = request->next) {
      ++outstanding_;
      most_outstanding = std::max(most_outstanding, outstanding_);
      ++unsignalled_;
      Operation operation;
      operation.request = *request;
      const ibv_sge& from = *request->sg_list;
      const auto* bytes = reinterpret_cast<const std::byte*>(from.addr);
      operation.bytes.assign(bytes, bytes + from.length);
      if (request->opcode == IBV_WR_RDMA_WRITE) {
        write_lengths.push_back(from.length);
        if (peers_.Find(request->wr.rdma.rkey, request->wr.rdma.remote_addr, from.length,
                        Access::kRemoteWrite) == nullptr) {
          completions_.push_back({.status = IBV_WC_REM_ACCESS_ERR});
          continue;
        }
      }
      wire_.push_back(std::move(operation));
      if ((request->send_flags & IBV_SEND_SIGNALED) != 0) {
        ++signals;
        local_.push_back(std::exchange(unsignalled_, 0U));
        if (!hold_local_completions) CompleteLocally();
      }
    }
    if (deliver_at_once) Deliver();
    return absl::OkStatus();
  }

  absl::Status PostReceive(ibv_recv_wr* request) override {
    receives_.push_back({request->wr_id, request->sg_list->addr});
    return absl::OkStatus();
  }

  absl::StatusOr<size_t> Poll(std::span<ibv_wc> completions) override {
    ++polls;
    if (on_poll) on_poll();
    size_t taken = 0;
    while (taken < completions.size() && !completions_.empty()) {
      completions[taken++] = completions_.front();
      completions_.pop_front();
    }
    if (taken == 0 && !reason_.ok()) return reason_;
    return taken;
  }

  void Wait(Deadline) override {
    ++waits;
    if (on_wait) on_wait();
  }
  void Interrupt(absl::Status reason) override {
    if (reason_.ok()) reason_ = std::move(reason);
  }

  // The device says that it is done with everything posted: the peer's CPU need see nothing yet.
  void CompleteLocally() {
    while (!local_.empty()) {
      outstanding_ -= local_.front();
      local_.pop_front();
      completions_.push_back({.status = IBV_WC_SUCCESS, .opcode = IBV_WC_RDMA_WRITE});
    }
  }

  // An event of the device, or of the connection, is read: by the rules of the real thing.
  void Happen(const ibv_async_event& event) {
    absl::Status failure = Consequence(event, {.device = "double",
                                               .qp = &queue_pair,
                                               .cq = &completion_queue,
                                               .port = kPort,
                                               .has_its_gid = [this] { return has_its_gid; }});
    if (!failure.ok()) Interrupt(std::move(failure));
  }
  void Happen(rdma_cm_event_type event) {
    if (absl::Status failure = Consequence(event); !failure.ok()) Interrupt(std::move(failure));
  }

  // The queue pair is in error: what was posted comes back undone.
  void BreakQueue() { completions_.push_back({.status = IBV_WC_WR_FLUSH_ERR}); }

  // What a peer sends by itself, of at most sizeof(Message) bytes.
  void Arrive(std::span<const std::byte> bytes, ibv_wc_opcode opcode = IBV_WC_RECV,
              unsigned flags = 0) {
    if (receives_.empty()) {
      ++receiver_not_ready;
      return;
    }
    const Receive receive = receives_.front();
    receives_.pop_front();
    // A write with immediate data takes a receive, and writes nothing there.
    if (opcode == IBV_WC_RECV) {
      std::memcpy(reinterpret_cast<void*>(receive.address), bytes.data(), bytes.size());
    }
    completions_.push_back({.wr_id = receive.id,
                            .status = IBV_WC_SUCCESS,
                            .opcode = opcode,
                            .byte_len = static_cast<uint32_t>(bytes.size()),
                            .wc_flags = flags});
  }

  // What is on the wire never arrives.
  void LoseWire() { wire_.clear(); }

  // What is on the wire arrives, in order.
  void Deliver() {
    while (!wire_.empty()) {
      const Operation operation = std::move(wire_.front());
      wire_.pop_front();
      if (operation.request.opcode == IBV_WR_RDMA_WRITE) {
        std::byte* to =
            peers_.Find(operation.request.wr.rdma.rkey, operation.request.wr.rdma.remote_addr,
                        operation.bytes.size(), Access::kRemoteWrite);
        if (to != nullptr && !lose_writes)
          std::memcpy(to, operation.bytes.data(), operation.bytes.size());
      } else {
        peer_->Arrive(operation.bytes);
      }
    }
  }

  static constexpr uint8_t kPort = 1;
  ibv_qp queue_pair{};
  ibv_cq completion_queue{};
  bool has_its_gid = true;

  std::function<void()> on_wait;
  std::function<void()> on_poll;
  bool lose_writes = false;
  size_t polls = 0;
  size_t waits = 0;
  bool hold_local_completions = false;
  bool deliver_at_once = false;
  size_t doorbells = 0;
  size_t signals = 0;
  uint32_t most_outstanding = 0;
  size_t receiver_not_ready = 0;
  std::vector<uint32_t> write_lengths;
  LinkLimits limits_;

 private:
  struct Operation {
    ibv_send_wr request{};
    std::vector<std::byte> bytes;
  };
  struct Receive {
    uint64_t id;
    uint64_t address;
  };

  FakeMemory& peers_;
  FakeLink* peer_ = nullptr;
  absl::Status reason_;
  uint32_t outstanding_ = 0;
  uint32_t unsignalled_ = 0;
  std::deque<uint32_t> local_;  // requests under each signal, not yet completed
  std::deque<Operation> wire_;
  std::deque<Receive> receives_;
  std::deque<ibv_wc> completions_;
};

}  // namespace ramferry::rdma
