#include "transport/rdma/rdma_channel.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "fmt/format.h"
#include "transport/rdma/needs.h"

namespace ramferry::rdma {
namespace {

constexpr uint64_t kLargestWrite = MiB(1).value();
constexpr auto kGoodbyeTime = std::chrono::seconds(1);

uint32_t Low32(uint64_t value) {
  return static_cast<uint32_t>(value);
}
uint64_t AddressOf(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer);
}

}  // namespace

RdmaChannel::RdmaChannel(std::shared_ptr<void> context, std::unique_ptr<Link> link)
    : context_(std::move(context)), link_(std::move(link)) {}

absl::StatusOr<std::unique_ptr<RdmaChannel>> RdmaChannel::Create(std::shared_ptr<void> context,
                                                                 std::unique_ptr<Link> link,
                                                                 Memory& memory) {
  std::unique_ptr<RdmaChannel> channel(new RdmaChannel(std::move(context), std::move(link)));
  RETURN_IF_ERROR(channel->Prepare(memory));
  return channel;
}

absl::Status RdmaChannel::Prepare(Memory& memory) {
  memory_ = &memory;
  const LinkLimits& limits = link_->limits();
  // A quarter of the queue a chain: when it is full, one completion makes room for the next chain.
  chain_limit_ = std::max(limits.send_depth / 4, 1U);
  requests_.resize(chain_limit_);
  elements_.resize(chain_limit_);
  signals_.resize(limits.send_depth + 1);
  pending_zeros_.reserve(kMessageCredits * kRangesPerMessage);
  capabilities_.transport = "rdma";
  capabilities_.largest_write = ByteCount(std::min(kLargestWrite, limits.largest_message));
  capabilities_.batch = chain_limit_;
  capabilities_.one_sided = true;
  capabilities_.needs_registration = true;

  ASSIGN_OR_RETURN(messages_, MessageSlots::Create(memory, kProofSlot + 1));
  for (uint32_t slot = kMessageCredits; slot < kProofSlot; ++slot) {
    RETURN_IF_ERROR(messages_.Receive(*link_, slot));
  }
  return absl::OkStatus();
}

void RdmaChannel::UseTable(PieceTable& table) {
  table_ = &table;
  used_.assign(kMostPieces, false);
  in_use_.reserve(kMostPieces);
}

RdmaChannel::~RdmaChannel() {
  if (dead_.ok() && !aborted_ && table_ != nullptr) {
    Message bye{};
    bye.type = MessageType::kBye;
    const Deadline deadline = In(kGoodbyeTime);
    absl::Status status = SendMessage(bye);
    while (status.ok() && in_flight_ > 0 && Clock::now() < deadline)
      status = WaitForEvent(deadline);
  }
  if (table_ != nullptr) table_->LetGo(in_use_);
  link_.reset();  // before the memory that its requests name
}

absl::Status RdmaChannel::Fail(absl::Status status) {
  if (dead_.ok()) {
    dead_ = std::move(status);
    if (table_ != nullptr) {
      // The pieces in use may be half open, and the peer is gone for all channels of this
      // migration.
      table_->Fail(dead_);
    }
  }
  return dead_;
}

void RdmaChannel::Abort() {
  aborted_ = true;
  link_->Interrupt(absl::CancelledError("the RDMA channel was aborted"));
}

absl::Status RdmaChannel::Check(RegionId region, uint64_t offset, uint64_t length) const {
  const auto regions = table_->source();
  if (region >= regions.size() || offset % kPageBytes != 0 || length % kPageBytes != 0 ||
      offset > regions[region].description.size.value() ||
      length > regions[region].description.size.value() - offset) {
    return absl::InvalidArgumentError(
        fmt::format("write of {} bytes at {} of region {}: not whole pages within a region", length,
                    offset, region));
  }
  return absl::OkStatus();
}

absl::Status RdmaChannel::Write(std::span<const PageWrite> writes) {
  if (!dead_.ok()) return dead_;
  for (const PageWrite& write : writes) {
    if (absl::Status status = WriteOne(write); !status.ok()) return Fail(std::move(status));
  }
  if (absl::Status status = PostChain(); !status.ok()) return Fail(std::move(status));
  return absl::OkStatus();
}

absl::Status RdmaChannel::WriteOne(const PageWrite& write) {
  RETURN_IF_ERROR(Check(write.region, write.offset, write.length));
  if (OverlapsPendingZeros(write)) {
    // The peer's CPU may clear these pages after our device has written them: let it finish first.
    RETURN_IF_ERROR(Confirm(In(kAnswerTime)));
  }
  const MappedRegion& source = table_->source()[write.region];
  const bool in_place = write.bytes == source.address + write.offset;
  const uint64_t largest = capabilities_.largest_write.value();
  const std::byte* from = write.bytes;
  uint64_t offset = write.offset;
  const uint64_t end = write.offset + write.length;
  while (offset < end) {
    ASSIGN_OR_RETURN(const Piece* piece, Use(write.region, offset, end));
    uint64_t length = std::min({end - offset, piece->end() - offset, largest});
    const uint64_t to = piece->remote_address + (offset - piece->offset);
    if (in_place && piece->local.valid()) {
      RETURN_IF_ERROR(Append(from, piece->local.lkey(), to, piece->rkey, length, 0));
    } else {
      ASSIGN_OR_RETURN(std::byte* const staged, Stage(from, length));
      RETURN_IF_ERROR(Append(staged, staging_mr_.lkey(), to, piece->rkey, length, length));
    }
    offset += length;
    from += length;
  }
  stats_.payload += ByteCount(write.length);
  const uint64_t mtu = std::max(link_->limits().path_mtu, 256U);
  stats_.wire += ByteCount(write.length + (write.length + mtu - 1) / mtu * kPacketOverhead);
  return absl::OkStatus();
}

bool RdmaChannel::OverlapsPendingZeros(const PageWrite& write) const {
  // A worker goes upwards through its slice: nearly all writes lie above all zeros before them.
  if (pending_zeros_.empty() || std::pair(write.region, write.offset) >= zeros_end_ ||
      std::pair(write.region, write.offset + write.length) <= zeros_begin_) {
    return false;
  }
  return std::any_of(pending_zeros_.begin(), pending_zeros_.end(), [&](const PageZero& zero) {
    return zero.region == write.region && zero.offset < write.offset + write.length &&
           write.offset < zero.offset + zero.length;
  });
}

absl::StatusOr<const Piece*> RdmaChannel::Use(RegionId region, uint64_t offset, uint64_t end) {
  const PieceId id = table_->Find(region, offset);
  if (id != kNoPiece && used_[id]) return &table_->at(id);
  return UseNew(region, offset, end);
}

absl::StatusOr<const Piece*> RdmaChannel::UseNew(RegionId region, uint64_t offset, uint64_t end) {
  RETURN_IF_ERROR(PostChain());
  for (;;) {
    // Leave room for the largest piece there can be: what this one will be is not known yet.
    if (!in_use_.empty() && (used_bytes_ + table_->largest_piece() > table_->share() ||
                             in_use_.size() >= table_->most_in_use())) {
      RETURN_IF_ERROR(LetGoOfAll());
    }
    ASSIGN_OR_RETURN(const PieceTable::Claim claim, table_->Acquire(region, offset, end, aborted_));
    for (const PieceId dropped : claim.dropped) {
      Message release{};
      release.type = MessageType::kRelease;
      release.piece = dropped;
      RETURN_IF_ERROR(Ask(release, MessageType::kReleased, In(kAnswerTime)).status());
      table_->Dropped(dropped);
    }
    if (claim.piece == kNoPiece) continue;  // what was dropped has made room now
    const Piece& piece = table_->at(claim.piece);
    if (claim.open) {
      Message open{};
      open.type = MessageType::kRegister;
      open.piece = claim.piece;
      open.count = 1;
      open.ranges[0] = {region, 0, piece.offset, piece.length};
      ASSIGN_OR_RETURN(const Message answer, Ask(open, MessageType::kRegistered, In(kAnswerTime)));
      table_->Opened(claim.piece, answer.rkey, answer.address);
    }
    used_[claim.piece] = true;
    in_use_.push_back(claim.piece);
    used_bytes_ += piece.length;
    return &piece;
  }
}

absl::Status RdmaChannel::LetGoOfAll() {
  RETURN_IF_ERROR(Confirm(In(kAnswerTime)));
  table_->LetGo(in_use_);
  for (const PieceId id : in_use_) used_[id] = false;
  in_use_.clear();
  used_bytes_ = 0;
  return absl::OkStatus();
}

// Adds a write to the chain, or lengthens the last one when both continue it.
absl::Status RdmaChannel::Append(const std::byte* from, uint32_t lkey, uint64_t to, uint32_t rkey,
                                 uint64_t length, uint64_t staged) {
  if (chained_ > 0) {
    ibv_sge& element = elements_[chained_ - 1];
    const ibv_send_wr& request = requests_[chained_ - 1];
    if (element.lkey == lkey && request.wr.rdma.rkey == rkey &&
        element.addr + element.length == AddressOf(from) &&
        request.wr.rdma.remote_addr + element.length == to &&
        element.length + length <= capabilities_.largest_write.value()) {
      element.length += Low32(length);
      chain_staged_ += staged;
      return absl::OkStatus();
    }
  }
  if (chained_ == chain_limit_) RETURN_IF_ERROR(PostChain());
  elements_[chained_] = {AddressOf(from), Low32(length), lkey};
  ibv_send_wr& request = requests_[chained_];
  request = {};
  request.opcode = IBV_WR_RDMA_WRITE;
  request.sg_list = &elements_[chained_];
  request.num_sge = 1;
  request.wr.rdma.remote_addr = to;
  request.wr.rdma.rkey = rkey;
  ++chained_;
  chain_staged_ += staged;
  return absl::OkStatus();
}

void RdmaChannel::Posted(uint32_t requests, uint64_t staged) {
  signals_[(signal_head_ + signal_count_++) % signals_.size()] = {requests, staged};
  in_flight_ += requests;
}

absl::Status RdmaChannel::PostChain() {
  if (chained_ == 0) return absl::OkStatus();
  RETURN_IF_ERROR(WaitForRoom(chained_));
  for (uint32_t i = 0; i + 1 < chained_; ++i) requests_[i].next = &requests_[i + 1];
  requests_[chained_ - 1].next = nullptr;
  requests_[chained_ - 1].send_flags = IBV_SEND_SIGNALED;
  RETURN_IF_ERROR(link_->Post(requests_.data()));
  Posted(chained_, chain_staged_);
  chained_ = 0;
  chain_staged_ = 0;
  return Reap();
}

// Copies bytes to the ring; `length` becomes how many.
absl::StatusOr<std::byte*> RdmaChannel::Stage(const std::byte* from, uint64_t& length) {
  if (staging_.bytes() == nullptr) {
    ASSIGN_OR_RETURN(staging_, StagingMemory::Map());
    ASSIGN_OR_RETURN(staging_mr_,
                     memory_->Register(staging_.bytes(), kStagingBytes, Access::kLocalRead));
  }
  // A write may not wrap around the end: skip what is left of the ring, as if it were used.
  const uint64_t to_end = kStagingBytes - staging_next_ % kStagingBytes;
  length = std::min({length, to_end, kStagingBytes / 8});
  while (staging_next_ + length - staging_done_ > kStagingBytes) {
    RETURN_IF_ERROR(PostChain());
    if (staging_next_ + length - staging_done_ > kStagingBytes) {
      RETURN_IF_ERROR(WaitForEvent(Deadline::max()));
    }
  }
  std::byte* const place = staging_.bytes() + staging_next_ % kStagingBytes;
  std::memcpy(place, from, length);
  staging_next_ += length;
  return place;
}

}  // namespace ramferry::rdma
