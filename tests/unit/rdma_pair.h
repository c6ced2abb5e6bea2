// For tests of the RDMA page channel: two guests, and channels between them over two devices that
// do only what the test lets them.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/unique_fd.h"
#include "tests/unit/rdma_double.h"
#include "transport/rdma/landing.h"
#include "transport/rdma/rdma_channel.h"

namespace ramferry::rdma {

class Guest {
 public:
  explicit Guest(uint64_t bytes) : fd_(::memfd_create("guest", 0)), bytes_(bytes) {
    if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) std::abort();
    region.description.name = "ram";
    region.description.size = ByteCount(bytes);
    region.address = static_cast<std::byte*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0));
    region.fd = fd_.get();
  }
  ~Guest() { ::munmap(region.address, bytes_); }
  [[nodiscard]] std::byte* page(uint64_t index) const {
    return region.address + index * kPageBytes;
  }
  void Fill(uint64_t index, int value) const { std::memset(page(index), value, kPageBytes); }
  [[nodiscard]] PageWrite Write(uint64_t first, uint64_t count = 1) const {
    return {0, first * kPageBytes, page(first), count * kPageBytes};
  }

  MappedRegion region;

 private:
  UniqueFd fd_;
  uint64_t bytes_;
};

inline constexpr uint64_t kGuestBytes = MiB(16).value();

class RdmaChannelTest : public ::testing::Test {
 protected:
  struct Pair {
    std::unique_ptr<ChannelService> service;  // outlives the channel, which says goodbye to it
    std::unique_ptr<RdmaChannel> channel;
    FakeLink* source = nullptr;
    FakeLink* destination = nullptr;
    bool goodbye = false;
    absl::Status served;
  };

  // `channels` connected channels, which deliver and are served whenever the source waits.
  void Open(size_t channels = 1, ByteCount budget = ByteCount(0)) {
    landing_ =
        std::make_unique<Landing>(std::span(&destination_.region, 1), destination_memory_, budget);
    PieceLimits limits;
    limits.budget = budget;
    limits.largest_piece = UINT64_MAX;
    limits.most_pieces = most_pieces_;
    limits.channels = channels;
    auto table = PieceTable::Create({&source_.region, 1}, source_memory_, limits);
    ASSERT_TRUE(table.ok()) << table.status();
    table_ = *std::move(table);
    for (size_t i = 0; i < channels; ++i) {
      auto& pair = *pairs_.emplace_back(std::make_unique<Pair>());
      auto source = std::make_unique<FakeLink>(destination_memory_);
      auto destination = std::make_unique<FakeLink>(source_memory_);
      pair.source = source.get();
      pair.destination = destination.get();
      source->ConnectTo(*destination);
      destination->ConnectTo(*source);
      destination->deliver_at_once = true;
      auto service = ChannelService::Create(std::move(destination), destination_memory_, *landing_);
      ASSERT_TRUE(service.ok());
      pair.service = *std::move(service);
      auto channel = RdmaChannel::Create(nullptr, std::move(source), source_memory_);
      ASSERT_TRUE(channel.ok());
      pair.channel = *std::move(channel);
      pair.channel->UseTable(*table_);
      pair.source->on_wait = [this, &pair] { DeliverAndServe(pair); };
    }
  }

  void DeliverAndServe(Pair& pair) {
    pair.source->CompleteLocally();
    pair.source->Deliver();
    if (pair.served.ok()) pair.served = pair.service->ServeSome(pair.goodbye);
    const uint64_t messages = pairs_.size() * sizeof(Message) * (kMessageCredits + 8);
    const uint64_t proofs = pairs_.size() * sizeof(WireRange);
    most_pinned_ = std::max(most_pinned_, destination_memory_.pinned() - messages - proofs);
  }

  [[nodiscard]] bool Same(uint64_t first, uint64_t count = 1) const {
    return std::memcmp(source_.page(first), destination_.page(first), count * kPageBytes) == 0;
  }

  RdmaChannel& channel() { return *pairs_[0]->channel; }
  FakeLink& link() { return *pairs_[0]->source; }

  uint32_t most_pieces_ = 64;  // before Open
  Guest source_{kGuestBytes};
  Guest destination_{kGuestBytes};
  FakeMemory source_memory_;
  FakeMemory destination_memory_;
  std::unique_ptr<Landing> landing_;
  std::unique_ptr<PieceTable> table_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  uint64_t most_pinned_ = 0;
};

}  // namespace ramferry::rdma
