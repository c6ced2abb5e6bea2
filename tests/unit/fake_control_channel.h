// A control channel without a network: two connected ends in one process, and faults on command.
//
//   FakeControlPair pair;
//   pair.At(FakeControlPair::kToSource, 2, FakeFault::kLoseAndCut);   // the second answer is lost
//   std::thread destination([&] { Serve(pair.destination()); });
//   EXPECT_THAT(Migrate(pair.source()), ...);
//
// Ordered and lossless unless told otherwise, like the real one; its queues have no bound. What was
// delivered before the connection broke is still received, then Receive says Unavailable. An end
// that was closed by its own side receives nothing more. Everything is thread-safe; faults may be
// set at any time, and hold for messages sent later.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "transport/control_channel.h"

namespace ramferry {

// What happens to one message.
enum class FakeFault {
  kDeliverAndCut,    // it arrives, then the connection is lost for both sides
  kLoseAndCut,       // Send says OK, it never arrives, the connection is lost for both sides
  kFailSend,         // Send says Unavailable, it never arrives, the connection is lost
  kSwallow,          // Send says OK, it never arrives, the connection stays
  kSwallowFromHere,  // this one and all later ones of the same direction: a silent network
};

class FakeControlPair {
 public:
  enum Direction { kToDestination = 0, kToSource = 1 };

  FakeControlPair()
      : wire_(std::make_shared<Wire>()),
        source_(std::make_unique<End>(wire_, kToDestination, "destination.test", "192.0.2.2")),
        destination_(std::make_unique<End>(wire_, kToSource, "source.test", "192.0.2.1")) {}

  [[nodiscard]] ControlChannel& source() { return *source_; }
  [[nodiscard]] ControlChannel& destination() { return *destination_; }
  // For code that wants to own its end; source() or destination() may not be used afterwards.
  // An end that is destroyed is closed.
  [[nodiscard]] std::unique_ptr<ControlChannel> TakeSource() { return std::move(source_); }
  [[nodiscard]] std::unique_ptr<ControlChannel> TakeDestination() {
    return std::move(destination_);
  }

  // `fault` befalls the `nth` message (from 1) sent in `direction`, counted from the beginning.
  void At(Direction direction, size_t nth, FakeFault fault) {
    const std::lock_guard lock(wire_->mutex);
    wire_->lanes[direction].faults[nth] = fault;
  }
  // `fault` befalls the next message of that name (as NameOf has it) in `direction`.
  void AtNext(Direction direction, std::string_view name, FakeFault fault) {
    const std::lock_guard lock(wire_->mutex);
    wire_->lanes[direction].named_faults[std::string(name)] = fault;
  }
  // Every later message in `direction` takes `time` to arrive.
  void Delay(Direction direction, Clock::duration time) {
    const std::lock_guard lock(wire_->mutex);
    wire_->lanes[direction].delay = time;
  }
  // The connection is lost now.
  void Cut() {
    const std::lock_guard lock(wire_->mutex);
    wire_->Cut();
  }
  // Names of all messages sent in `direction` so far, the lost ones too.
  [[nodiscard]] std::vector<std::string> Sent(Direction direction) const {
    const std::lock_guard lock(wire_->mutex);
    return wire_->lanes[direction].sent;
  }

 private:
  struct Lane {                                             // one direction; guarded by Wire::mutex
    std::deque<std::pair<Deadline, ControlMessage>> queue;  // when it arrives, what
    std::vector<std::string> sent;
    std::map<size_t, FakeFault> faults;
    std::map<std::string, FakeFault, std::less<>> named_faults;
    Clock::duration delay{0};
    bool silent = false;
    bool receiver_closed = false;
  };
  struct Wire {
    std::mutex mutex;
    std::condition_variable changed;
    Lane lanes[2];
    bool connected = true;

    void Cut() {
      connected = false;
      changed.notify_all();
    }
  };

  class End : public ControlChannel {
   public:
    End(std::shared_ptr<Wire> wire, Direction out, std::string peer_name, std::string peer_address)
        : wire_(std::move(wire)),
          out_(wire_->lanes[out]),
          in_(wire_->lanes[1 - out]),
          peer_name_(std::move(peer_name)),
          peer_address_(std::move(peer_address)) {}
    ~End() override { Close(); }

    absl::Status Send(const ControlMessage& message) override {
      const std::lock_guard lock(wire_->mutex);
      if (!wire_->connected) return Lost();
      out_.sent.emplace_back(NameOf(message));
      const FakeFault* fault = nullptr;
      const auto nth = out_.faults.find(out_.sent.size());
      if (nth != out_.faults.end()) fault = &nth->second;
      FakeFault named;
      if (const auto it = out_.named_faults.find(out_.sent.back()); it != out_.named_faults.end()) {
        named = it->second;
        fault = &named;
        out_.named_faults.erase(it);
      }
      if (fault != nullptr && *fault == FakeFault::kSwallowFromHere) out_.silent = true;
      const bool arrives =
          !out_.silent && (fault == nullptr || *fault == FakeFault::kDeliverAndCut);
      if (arrives) {
        out_.queue.emplace_back(Clock::now() + out_.delay, message);
        wire_->changed.notify_all();
      }
      if (fault != nullptr &&
          (*fault == FakeFault::kDeliverAndCut || *fault == FakeFault::kLoseAndCut ||
           *fault == FakeFault::kFailSend)) {
        wire_->Cut();
        if (*fault == FakeFault::kFailSend) return Lost();
      }
      return absl::OkStatus();
    }

    absl::StatusOr<ControlMessage> Receive(Deadline deadline) override {
      std::unique_lock lock(wire_->mutex);
      while (true) {
        if (in_.receiver_closed) return Lost();
        const Deadline now = Clock::now();
        Deadline wake = deadline;
        if (!in_.queue.empty()) {
          if (in_.queue.front().first <= now) {
            ControlMessage message = std::move(in_.queue.front().second);
            in_.queue.pop_front();
            return message;
          }
          wake = std::min(wake, in_.queue.front().first);
        } else if (!wire_->connected) {
          return Lost();
        }
        if (now >= deadline) {
          return absl::DeadlineExceededError(peer_name_ + " has not answered in time");
        }
        wire_->changed.wait_until(lock, wake);
      }
    }

    const std::string& peer_name() const override { return peer_name_; }
    const std::string& peer_address() const override { return peer_address_; }

    void Close() override {
      const std::lock_guard lock(wire_->mutex);
      in_.receiver_closed = true;
      wire_->Cut();
    }

   private:
    absl::Status Lost() const {
      return absl::UnavailableError("the connection to " + peer_name_ + " is lost");
    }

    const std::shared_ptr<Wire> wire_;
    Lane& out_;
    Lane& in_;
    const std::string peer_name_;
    const std::string peer_address_;
  };

  const std::shared_ptr<Wire> wire_;
  std::unique_ptr<ControlChannel> source_;
  std::unique_ptr<ControlChannel> destination_;
};

}  // namespace ramferry
