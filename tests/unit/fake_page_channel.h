// A page channel without a network: records what it is asked, and lands it in memory of this
// process when there is some.
//
//   FakePageChannel channel({.largest_write = KiB(64), .batch = 4});
//   ... let a shipper write to it ...
//   EXPECT_EQ(channel.pages_written(), 3U);
//
// As one worker owns a channel, nothing here is thread-safe but Abort.
#pragma once

#include <atomic>
#include <cstring>
#include <functional>
#include <span>
#include <vector>

#include "transport/page_channel.h"

namespace ramferry {

class FakePageChannel : public PageChannel {
 public:
  // Where pages land; empty: nowhere.
  explicit FakePageChannel(ChannelCapabilities capabilities = {.transport = "fake",
                                                               .largest_write = MiB(1)},
                           std::span<const MappedRegion> destination = {})
      : capabilities_(std::move(capabilities)),
        destination_(destination.begin(), destination.end()) {}

  // Called at the start of Write, WriteZeros and Flush; what it returns is the call's result.
  std::function<absl::Status(const char* call)> before;
  // What is written lands when it is confirmed, and never if that fails: the unkindest channel.
  bool lands_at_flush = false;
  std::vector<std::vector<PageWrite>> writes;  // by call
  std::vector<std::vector<PageZero>> zeros;    // by call
  size_t flushes = 0;
  std::vector<Waiting> waitings;  // as told

  [[nodiscard]] uint64_t bytes_written() const { return stats_.payload.value(); }
  [[nodiscard]] uint64_t pages_written() const { return bytes_written() / kPageBytes; }
  [[nodiscard]] uint64_t pages_zeroed() const {
    uint64_t pages = 0;
    for (const auto& call : zeros) {
      for (const PageZero& zero : call) pages += zero.length / kPageBytes;
    }
    return pages;
  }
  void Forget() {
    writes.clear();
    zeros.clear();
    stats_ = {};
  }

  const ChannelCapabilities& capabilities() const override { return capabilities_; }
  absl::Status Write(std::span<const PageWrite> batch) override {
    if (absl::Status status = Before("Write"); !status.ok()) return status;
    writes.emplace_back(batch.begin(), batch.end());
    for (const PageWrite& write : batch) {
      stats_.payload += ByteCount(write.length);
      stats_.wire += ByteCount(write.length);
      Land([this, write] {
        std::memcpy(destination_[write.region].address + write.offset, write.bytes, write.length);
      });
    }
    return absl::OkStatus();
  }
  absl::Status WriteZeros(std::span<const PageZero> batch) override {
    if (absl::Status status = Before("WriteZeros"); !status.ok()) return status;
    zeros.emplace_back(batch.begin(), batch.end());
    for (const PageZero& zero : batch) {
      stats_.wire += ByteCount(16);
      Land([this, zero] {
        std::memset(destination_[zero.region].address + zero.offset, 0, zero.length);
      });
    }
    return absl::OkStatus();
  }
  absl::Status Flush(Deadline /*deadline*/) override {
    ++flushes;
    if (absl::Status status = Before("Flush"); !status.ok()) return status;
    for (const auto& landing : under_way_) landing();
    under_way_.clear();
    return absl::OkStatus();
  }
  ChannelStats stats() const override { return stats_; }
  void SetWaiting(Waiting waiting) override { waitings.push_back(waiting); }
  void Abort() override { aborted_ = true; }

 private:
  void Land(std::function<void()> landing) {
    if (destination_.empty()) return;
    if (lands_at_flush) {
      under_way_.push_back(std::move(landing));
    } else {
      landing();
    }
  }
  absl::Status Before(const char* call) {
    if (aborted_) return absl::CancelledError("the channel was aborted");
    return before != nullptr ? before(call) : absl::OkStatus();
  }

  const ChannelCapabilities capabilities_;
  const std::vector<MappedRegion> destination_;
  std::vector<std::function<void()>> under_way_;
  ChannelStats stats_;
  std::atomic<bool> aborted_{false};
};

}  // namespace ramferry
