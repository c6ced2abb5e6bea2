#include "transport/rdma/rdma_channel.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "fmt/format.h"

namespace ramferry::rdma {
namespace {

constexpr uint64_t kLargestWrite = MiB(1).value();
constexpr uint64_t kStagingBytes = MiB(8).value();
constexpr uint32_t kAnswers = 4;  // receives posted: the peer answers one thing at a time
constexpr auto kAnswerTime = std::chrono::seconds(30);
constexpr auto kReasonTime = std::chrono::milliseconds(500);
constexpr auto kGoodbyeTime = std::chrono::seconds(1);
// A busy look at the completion queue costs less than going to sleep for it, for a while.
constexpr auto kSpinTime = std::chrono::microseconds(20);
// Ethernet, IPv4, UDP, base transport header, extended header, checksums (RoCEv2 annex A17).
constexpr uint64_t kPacketOverhead = 14 + 20 + 8 + 12 + 16 + 4 + 4;

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

  ASSIGN_OR_RETURN(messages_, MessageSlots::Create(memory, kMessageCredits + kAnswers));
  for (uint32_t slot = kMessageCredits; slot < kMessageCredits + kAnswers; ++slot) {
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
  staging_mr_.Reset();
  if (staging_ != nullptr) ::munmap(staging_, kStagingBytes);
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
    if (used_bytes_ > 0 && used_bytes_ + table_->largest_piece() > table_->share()) {
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

absl::Status RdmaChannel::PostChain() {
  if (chained_ == 0) return absl::OkStatus();
  RETURN_IF_ERROR(WaitForRoom(chained_));
  for (uint32_t i = 0; i + 1 < chained_; ++i) requests_[i].next = &requests_[i + 1];
  requests_[chained_ - 1].next = nullptr;
  requests_[chained_ - 1].send_flags = IBV_SEND_SIGNALED;
  RETURN_IF_ERROR(link_->Post(requests_.data()));
  signals_[(signal_head_ + signal_count_++) % signals_.size()] = {chained_, chain_staged_};
  in_flight_ += chained_;
  chained_ = 0;
  chain_staged_ = 0;
  return Reap();
}

absl::Status RdmaChannel::WaitForRoom(uint32_t requests) {
  while (in_flight_ + requests > link_->limits().send_depth) {
    RETURN_IF_ERROR(WaitForEvent(Deadline::max()));
  }
  return absl::OkStatus();
}

// Looks for completions for a while, then sleeps until there is one or the deadline.
absl::Status RdmaChannel::WaitForEvent(Deadline deadline) {
  const uint32_t before = in_flight_;
  const Deadline spin_until = In(kSpinTime);
  do {
    RETURN_IF_ERROR(Reap());
    if (in_flight_ != before || answered_) return absl::OkStatus();
  } while (Clock::now() < spin_until);
  link_->Wait(deadline);
  return Reap();
}

absl::Status RdmaChannel::Reap() {
  std::array<ibv_wc, 16> completions;
  for (;;) {
    ASSIGN_OR_RETURN(const size_t found, link_->Poll(completions));
    for (size_t i = 0; i < found; ++i) {
      const ibv_wc& completion = completions[i];
      if (completion.status != IBV_WC_SUCCESS) return FailedCompletion(completion);
      if ((completion.opcode & IBV_WC_RECV) == 0) {
        const Signal& signal = signals_[signal_head_];
        in_flight_ -= signal.requests;
        staging_done_ += signal.staged;
        signal_head_ = (signal_head_ + 1) % signals_.size();
        --signal_count_;
        continue;
      }
      answer_ = messages_[completion.wr_id];
      answered_ = true;
      RETURN_IF_ERROR(messages_.Receive(*link_, completion.wr_id));
      if (completion.byte_len != sizeof(Message)) {
        return absl::DataLossError("the destination sent an RDMA message of the wrong size");
      }
      if (answer_.type == MessageType::kFailed) {
        return absl::UnavailableError(fmt::format("the destination says: {}", TextOf(answer_)));
      }
    }
    if (found < completions.size()) return absl::OkStatus();
  }
}

absl::Status RdmaChannel::FailedCompletion(const ibv_wc& completion) {
  if (completion.status == IBV_WC_WR_FLUSH_ERR) {
    // Requests are flushed out after something else went wrong: it is behind them, or the link will
    // hear of it in a moment.
    const Deadline patience = In(kReasonTime);
    std::array<ibv_wc, 16> rest;
    do {
      ASSIGN_OR_RETURN(const size_t found, link_->Poll(rest));
      for (size_t i = 0; i < found; ++i) {
        if (rest[i].status != IBV_WC_SUCCESS && rest[i].status != IBV_WC_WR_FLUSH_ERR) {
          return FailedCompletion(rest[i]);
        }
      }
      if (found == 0) link_->Wait(patience);
    } while (Clock::now() < patience);
  }
  const char* name = ibv_wc_status_str(completion.status);
  switch (completion.status) {
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return absl::UnavailableError(fmt::format(
          "the destination's RDMA device does not answer any more ({}): check the link", name));
    case IBV_WC_REM_ACCESS_ERR:
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
      return absl::AbortedError(fmt::format(
          "the destination's RDMA device refused a write ({}): the key it gave is not good there",
          name));
    case IBV_WC_LOC_PROT_ERR:
    case IBV_WC_LOC_ACCESS_ERR:
      return absl::InternalError(
          fmt::format("this host's RDMA device refused to read guest memory ({})", name));
    default:
      return absl::UnavailableError(fmt::format("the RDMA connection broke ({}, vendor code {:#x})",
                                                name, completion.vendor_err));
  }
}

absl::Status RdmaChannel::SendMessage(const Message& message) {
  RETURN_IF_ERROR(PostChain());
  RETURN_IF_ERROR(WaitForRoom(1));
  const uint32_t slot = next_message_;
  next_message_ = (next_message_ + 1) % kMessageCredits;
  messages_[slot] = message;
  RETURN_IF_ERROR(messages_.Send(*link_, slot));
  signals_[(signal_head_ + signal_count_++) % signals_.size()] = {1, 0};
  ++in_flight_;
  ++unanswered_;
  stats_.wire += ByteCount(sizeof(Message) + kPacketOverhead);
  return absl::OkStatus();
}

absl::StatusOr<Message> RdmaChannel::Ask(Message message, MessageType answer, Deadline deadline) {
  RETURN_IF_ERROR(SendZeros());
  message.sequence = ++sequence_;
  answered_ = false;
  RETURN_IF_ERROR(SendMessage(message));
  while (!answered_) {
    if (Clock::now() >= deadline) {
      return absl::DeadlineExceededError(
          "the destination did not answer in time over RDMA: it hangs, or the link is cut");
    }
    RETURN_IF_ERROR(WaitForEvent(deadline));
  }
  answered_ = false;
  if (answer_.type != answer || answer_.sequence != message.sequence) {
    return absl::DataLossError("the destination answered something else over RDMA than was asked");
  }
  // It answers in order: everything told before is done.
  unanswered_ = 0;
  pending_zeros_.clear();
  return answer_;
}

// Returns when the destination's CPU sees all writes and has cleared all zeros told so far.
absl::Status RdmaChannel::Confirm(Deadline deadline) {
  Message flush{};
  flush.type = MessageType::kFlush;
  return Ask(flush, MessageType::kFlushed, deadline).status();
}

absl::Status RdmaChannel::Flush(Deadline deadline) {
  if (!dead_.ok()) return dead_;
  if (absl::Status status = Confirm(deadline); !status.ok()) return Fail(std::move(status));
  return absl::OkStatus();
}

absl::Status RdmaChannel::SendZeros() {
  if (zeros_.count == 0) return absl::OkStatus();
  RETURN_IF_ERROR(SendMessage(zeros_));
  zeros_.count = 0;
  return absl::OkStatus();
}

// Ranges of many calls share a message: what a worker finds at a time is a handful, and every
// message costs the destination's CPU, every kMessageCredits of them a round trip.
absl::Status RdmaChannel::AddZero(const PageZero& zero) {
  RETURN_IF_ERROR(Check(zero.region, zero.offset, zero.length));
  const std::pair begin(zero.region, zero.offset);
  const std::pair end(zero.region, zero.offset + zero.length);
  zeros_begin_ = pending_zeros_.empty() ? begin : std::min(zeros_begin_, begin);
  zeros_end_ = pending_zeros_.empty() ? end : std::max(zeros_end_, end);
  if (zeros_.count > 0) {
    WireRange& last = zeros_.ranges[zeros_.count - 1];
    if (last.region == zero.region && last.offset + last.length == zero.offset) {
      last.length += zero.length;
      pending_zeros_.back().length += zero.length;
      return absl::OkStatus();
    }
  }
  zeros_.ranges[zeros_.count++] = {zero.region, 0, zero.offset, zero.length};
  pending_zeros_.push_back(zero);
  if (zeros_.count < kRangesPerMessage) return absl::OkStatus();
  RETURN_IF_ERROR(SendZeros());
  // Credits for another message of zeros and a question behind it stay free.
  return unanswered_ + 2 > kMessageCredits ? Confirm(In(kAnswerTime)) : absl::OkStatus();
}

absl::Status RdmaChannel::WriteZeros(std::span<const PageZero> zeros) {
  if (!dead_.ok()) return dead_;
  for (const PageZero& zero : zeros) {
    if (absl::Status status = AddZero(zero); !status.ok()) return Fail(std::move(status));
  }
  return absl::OkStatus();
}

// Copies bytes to the ring; `length` becomes how many.
absl::StatusOr<std::byte*> RdmaChannel::Stage(const std::byte* from, uint64_t& length) {
  if (staging_ == nullptr) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void* ring = ::mmap(nullptr, kStagingBytes, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1, 0);
    if (ring == MAP_FAILED) {
      ring = ::mmap(nullptr, kStagingBytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    }
    if (ring == MAP_FAILED) return ErrnoStatus(errno, "cannot map the RDMA staging ring");
    staging_ = static_cast<std::byte*>(ring);
    ASSIGN_OR_RETURN(staging_mr_, memory_->Register(staging_, kStagingBytes, Access::kLocalRead));
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
  std::byte* const place = staging_ + staging_next_ % kStagingBytes;
  std::memcpy(place, from, length);
  staging_next_ += length;
  return place;
}

}  // namespace ramferry::rdma
