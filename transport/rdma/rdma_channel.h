// The source's end of an RDMA page channel: one-sided writes on one queue pair.
//
// Pages go from the source guest's memory straight into the destination guest's, as RDMA WRITEs,
// chained, one doorbell a chain and one signalled request a chain. Memory that cannot be registered
// goes through a registered staging ring (one copy). Zeros go as a message; the destination's CPU
// clears the pages, and a later write to the same pages waits until it has.
//
// Flush trusts nothing that this side's device says: a local completion means that the other device
// has taken the data, not that the other CPU sees it (InfiniBand Architecture Specification, volume
// 1, section 9.7.5.1). A SEND behind the last WRITE completes at the destination after the data is
// visible there; its answer ends the flush.
//
// No lock and no allocation per write. Opening a piece of memory (piece_table.h) locks and waits
// for the peer: once for up to 64 MiB.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/local_pages.h"
#include "transport/page_channel.h"
#include "transport/rdma/message_slots.h"
#include "transport/rdma/piece_table.h"
#include "transport/rdma/staging_memory.h"
#include "transport/rdma/verbs.h"
#include "transport/rdma/wire.h"

namespace ramferry::rdma {

class RdmaChannel final : public PageChannel, public InLocalPages {
 public:
  // `context` keeps alive what table and memory live in. Posts the channel's receives, so it must
  // be made before the peer may send.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<RdmaChannel>> Create(
      std::shared_ptr<void> context, std::unique_ptr<Link> link, Memory& memory);
  ~RdmaChannel() override;

  // What capabilities() then say.
  void SetPath(std::string path) { capabilities_.path = std::move(path); }

  // The first Flush also writes the nonce to memory of the destination's that is there for this,
  // and has the destination say that it arrived. The engine flushes a channel before it touches the
  // guest.
  void ProveAtFirstFlush(const Welcome& welcome, const Nonce& nonce);

  // The table comes after the connection: its limits are known only then.
  void UseTable(PieceTable& table);

  [[nodiscard]] const ChannelCapabilities& capabilities() const override { return capabilities_; }
  [[nodiscard]] absl::Status Write(std::span<const PageWrite> writes) override;
  [[nodiscard]] absl::Status WriteZeros(std::span<const PageZero> zeros) override;
  [[nodiscard]] absl::Status Flush(Deadline deadline) override;
  [[nodiscard]] ChannelStats stats() const override { return stats_; }
  void SetWaiting(Waiting waiting) override { waiting_ = waiting; }
  void Abort() override;

 private:
  // Ethernet, IPv4, UDP, base transport header, extended header, checksums (RoCEv2 annex A17).
  static constexpr uint64_t kPacketOverhead = 14 + 20 + 8 + 12 + 16 + 4 + 4;
  // For the destination to answer, whatever it is asked: registering memory takes it longest.
  static constexpr std::chrono::seconds kAnswerTime{30};

  static constexpr uint32_t kAnswers = 4;  // receives: the peer answers one thing at a time
  static constexpr uint32_t kProofSlot = kMessageCredits + kAnswers;

  struct Signal {  // what the next completion stands for
    uint32_t requests = 0;
    uint64_t staged = 0;
  };

  RdmaChannel(std::shared_ptr<void> context, std::unique_ptr<Link> link);
  [[nodiscard]] absl::Status Prepare(Memory& memory);
  void Posted(uint32_t requests, uint64_t staged);  // the last of them with a signal

  [[nodiscard]] absl::Status WriteOne(const PageWrite& write);
  [[nodiscard]] absl::Status Check(RegionId region, uint64_t offset, uint64_t length) const;
  [[nodiscard]] absl::StatusOr<const Piece*> Use(RegionId region, uint64_t offset, uint64_t end);
  [[nodiscard]] absl::StatusOr<const Piece*> UseNew(RegionId region, uint64_t offset, uint64_t end);
  [[nodiscard]] absl::Status LetGoOfAll();
  [[nodiscard]] absl::Status Append(const std::byte* from, uint32_t lkey, uint64_t to,
                                    uint32_t rkey, uint64_t length, uint64_t staged);
  [[nodiscard]] absl::StatusOr<std::byte*> Stage(const std::byte* from, uint64_t& length);
  [[nodiscard]] bool OverlapsPendingZeros(const PageWrite& write) const;

  [[nodiscard]] absl::Status PostChain();
  [[nodiscard]] absl::Status WaitForRoom(uint32_t requests);
  [[nodiscard]] absl::Status Reap();
  [[nodiscard]] absl::Status WaitForEvent(Deadline deadline);
  [[nodiscard]] absl::Status AddZero(const PageZero& zero);
  [[nodiscard]] absl::Status SendZeros();
  [[nodiscard]] absl::Status SendMessage(const Message& message);
  [[nodiscard]] absl::StatusOr<Message> Ask(Message message, MessageType answer, Deadline deadline);
  [[nodiscard]] absl::Status Confirm(Deadline deadline);
  [[nodiscard]] absl::Status Prove(Deadline deadline);
  [[nodiscard]] absl::Status Fail(absl::Status status);
  [[nodiscard]] absl::Status FailedCompletion(const ibv_wc& completion);

  std::shared_ptr<void> context_;
  std::unique_ptr<Link> link_;
  Memory* memory_ = nullptr;
  PieceTable* table_ = nullptr;
  ChannelCapabilities capabilities_;
  ChannelStats stats_;
  absl::Status dead_;
  std::atomic<bool> aborted_{false};
  Waiting waiting_ = Waiting::kAdapt;

  std::vector<bool> used_;  // by PieceId
  std::vector<PieceId> in_use_;
  uint64_t used_bytes_ = 0;

  LocalVector<ibv_send_wr> requests_;  // the chain being built
  LocalVector<ibv_sge> elements_;
  uint32_t chained_ = 0;
  uint32_t chain_limit_ = 0;
  uint64_t chain_staged_ = 0;
  uint32_t in_flight_ = 0;
  LocalVector<Signal> signals_;  // ring
  size_t signal_head_ = 0;
  size_t signal_count_ = 0;

  MessageSlots messages_;  // kMessageCredits to send, then the receives, then the proof
  bool to_prove_ = false;
  uint64_t proof_address_ = 0;
  uint32_t proof_rkey_ = 0;
  uint32_t unanswered_ = 0;
  uint32_t next_message_ = 0;
  uint64_t sequence_ = 0;
  bool answered_ = false;
  Message answer_{};

  Message zeros_{.type = MessageType::kZero};  // being filled
  LocalVector<PageZero> pending_zeros_;        // taken from the caller, not known to be done
  // What lies outside touches none of them.
  std::pair<RegionId, uint64_t> zeros_begin_;
  std::pair<RegionId, uint64_t> zeros_end_;

  StagingMemory staging_;      // ring, mapped at the first need
  uint64_t staging_next_ = 0;  // bytes ever put in
  uint64_t staging_done_ = 0;  // bytes ever taken out
  Registration staging_mr_;
};

}  // namespace ramferry::rdma
