// Where pages land on the destination, in one protection domain: registers pieces of the guest's
// memory as the source asks for them, and clears pages. Shared by all channels of a migration that
// come over one device.
//
// Nothing the source says is believed: ranges must be whole pages within the regions, piece numbers
// free, and pinned bytes within the budget. Everything is deregistered when this goes, or at Close:
// no key is good for longer than one migration. Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/guest_memory.h"
#include "base/local_pages.h"
#include "base/units.h"
#include "transport/rdma/message_slots.h"
#include "transport/rdma/verbs.h"
#include "transport/rdma/wire.h"

namespace ramferry::rdma {

// What all landings of a migration may pin together. Thread-safe.
class PinAccount {
 public:
  explicit PinAccount(ByteCount budget) : budget_(budget.value()) {}  // 0: no limit
  [[nodiscard]] absl::Status Take(uint64_t bytes);
  void Give(uint64_t bytes);

 private:
  const uint64_t budget_;
  std::mutex mutex_;
  uint64_t pinned_ = 0;  // guarded by mutex_
};

class Landing {
 public:
  // The landings of one migration share `pins`.
  Landing(std::span<const MappedRegion> regions, Memory& memory, std::shared_ptr<PinAccount> pins)
      : regions_(regions.begin(), regions.end()), memory_(memory), pins_(std::move(pins)) {}
  // For one that is alone. `budget` 0: no limit.
  Landing(std::span<const MappedRegion> regions, Memory& memory, ByteCount budget)
      : Landing(regions, memory, std::make_shared<PinAccount>(budget)) {}
  ~Landing() { Close(); }
  Landing(const Landing&) = delete;
  Landing& operator=(const Landing&) = delete;

  struct Key {
    uint32_t rkey = 0;
    uint64_t address = 0;
  };
  [[nodiscard]] absl::StatusOr<Key> Register(uint32_t piece, const WireRange& range);
  [[nodiscard]] absl::Status Release(uint32_t piece);

  // Makes the range zero. Pages that nobody ever touched stay unpopulated.
  [[nodiscard]] absl::Status Clear(const WireRange& range);

  void Close();

 private:
  [[nodiscard]] absl::Status Check(const WireRange& range) const;

  const std::vector<MappedRegion> regions_;
  Memory& memory_;
  const std::shared_ptr<PinAccount> pins_;

  struct Landed {
    uint64_t length = 0;
    Registration registration;
  };
  std::mutex mutex_;
  std::map<uint32_t, Landed> pieces_;  // guarded by mutex_
};

// What one channel does on the destination until the source says goodbye: answers its messages.
class ChannelService final : public InLocalPages {
 public:
  // Posts the receives; the link may then be connected.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<ChannelService>> Create(
      std::unique_ptr<Link> link, Memory& memory, Landing& landing);
  ~ChannelService();

  // Where the source may write, to prove that its writes arrive (wire.h, kProve).
  [[nodiscard]] Landing::Key proof_place() const {
    return {proof_registration_.rkey(), reinterpret_cast<uintptr_t>(proof_.get())};
  }

  // Serves until the source said goodbye (OK) or something failed. One thread.
  [[nodiscard]] absl::Status Serve();
  // Thread-safe: makes Serve return `reason` soon.
  void Interrupt(absl::Status reason) { link_->Interrupt(std::move(reason)); }

  // Serves what there is and returns; `goodbye` is set when the source is done.
  [[nodiscard]] absl::Status ServeSome(bool& goodbye);

 private:
  ChannelService(std::unique_ptr<Link> link, Landing& landing)
      : link_(std::move(link)), landing_(landing) {}
  [[nodiscard]] absl::Status Prepare(Memory& memory);
  [[nodiscard]] absl::Status Handle(const Message& message, bool& goodbye);
  [[nodiscard]] absl::Status Answer(const Message& message);

  std::unique_ptr<Link> link_;
  Landing& landing_;
  MessageSlots messages_;  // kMessageCredits receives, then the answers
  std::unique_ptr<WireRange> proof_;
  Registration proof_registration_;
  uint32_t answers_in_flight_ = 0;
  uint32_t next_answer_ = 0;
};

}  // namespace ramferry::rdma
