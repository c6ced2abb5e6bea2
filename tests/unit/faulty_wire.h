// A wire that loses, doubles and disorders frames on their way in and out, at random from a seed.
#pragma once

#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <utility>

#include "transport/dpdk/wire.h"

namespace ramferry {

struct Faults {
  double lose = 0;  // of frames with data, either way
  double twice = 0;
  double late = 0;  // comes after up to 8 others
  std::atomic<bool> cut{false};
  std::atomic<uint64_t> done{0};  // faults
};

class FaultyWire final : public dpdk::Wire {
 public:
  FaultyWire(std::unique_ptr<dpdk::Wire> wire, Faults& faults)
      : wire_(std::move(wire)), faults_(faults) {}

  dpdk::MacAddress mac() const override { return wire_->mac(); }
  std::string name() const override { return wire_->name(); }

  size_t Receive(std::span<dpdk::Frame> frames) override {
    size_t count = wire_->Receive(frames.first(frames.size() / 2));
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i) {
      if (Lost(frames[i])) {
        wire_->Free(frames[i].buffer);
      } else if (Late(frames[i])) {
        late_in_.push_back(frames[i]);
      } else {
        frames[kept++] = frames[i];
      }
    }
    // What was held back comes now, after the others; or twice.
    while (!late_in_.empty() && kept < frames.size()) {
      frames[kept++] = late_in_.front();
      late_in_.pop_front();
    }
    const size_t before_copies = kept;
    for (size_t i = 0; i < before_copies && kept < frames.size(); ++i) {
      if (Twice(frames[i]) && wire_->Allocate(frames[i].length, frames[kept])) {
        std::memcpy(frames[kept].data, frames[i].data, frames[i].length);
        ++kept;
      }
    }
    return kept;
  }
  bool Allocate(uint32_t length, dpdk::Frame& frame) override {
    return wire_->Allocate(length, frame);
  }
  void Send(const dpdk::Frame& frame) override {
    if (Lost(frame)) return wire_->Free(frame.buffer);
    dpdk::Frame copy;
    if (Twice(frame) && wire_->Allocate(frame.length, copy)) {
      std::memcpy(copy.data, frame.data, frame.length);
      wire_->Send(copy);
    }
    if (Late(frame)) return late_out_.push_back(frame);
    wire_->Send(frame);
    if (!late_out_.empty() && random_() % 4 == 0) {
      wire_->Send(late_out_.front());
      late_out_.pop_front();
    }
  }
  void Flush() override { wire_->Flush(); }
  void Free(void* buffer) override { wire_->Free(buffer); }
  const dpdk::WireCounters& counters() const override { return wire_->counters(); }
  uint64_t missed() const override { return wire_->missed(); }

 private:
  bool Chance(double probability) {
    if (probability == 0 || std::uniform_real_distribution<>()(random_) >= probability)
      return false;
    faults_.done.fetch_add(1);
    return true;
  }
  bool Lost(const dpdk::Frame& frame) {
    return faults_.cut.load() || (frame.length > 200 && Chance(faults_.lose));
  }
  bool Twice(const dpdk::Frame& frame) { return frame.length > 200 && Chance(faults_.twice); }
  bool Late(const dpdk::Frame& frame) { return frame.length > 200 && Chance(faults_.late); }

  const std::unique_ptr<dpdk::Wire> wire_;
  Faults& faults_;
  std::mt19937_64 random_{42};
  std::deque<dpdk::Frame> late_in_;
  std::deque<dpdk::Frame> late_out_;
};

}  // namespace ramferry
