// RdmaChannel: what it tells and asks the destination: zeros, flushes, pieces.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "transport/rdma/rdma_channel.h"

namespace ramferry::rdma {

absl::Status RdmaChannel::SendMessage(const Message& message) {
  RETURN_IF_ERROR(PostChain());
  RETURN_IF_ERROR(WaitForRoom(1));
  const uint32_t slot = next_message_;
  next_message_ = (next_message_ + 1) % kMessageCredits;
  messages_[slot] = message;
  RETURN_IF_ERROR(messages_.Send(*link_, slot));
  Posted(1, 0);
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

void RdmaChannel::ProveAtFirstFlush(const Welcome& welcome, const Nonce& nonce) {
  Message& prove = messages_[kProofSlot];
  prove.type = MessageType::kProve;
  static_assert(sizeof nonce == sizeof prove.ranges[0].offset + sizeof prove.ranges[0].length);
  std::memcpy(&prove.ranges[0].offset, nonce.data(), sizeof nonce);
  proof_address_ = welcome.proof_address;
  proof_rkey_ = welcome.proof_rkey;
  to_prove_ = true;
}

absl::Status RdmaChannel::Prove(Deadline deadline) {
  RETURN_IF_ERROR(PostChain());
  RETURN_IF_ERROR(WaitForRoom(1));
  RETURN_IF_ERROR(messages_.WriteRange(*link_, kProofSlot, proof_address_, proof_rkey_));
  Posted(1, 0);
  RETURN_IF_ERROR(Ask(messages_[kProofSlot], MessageType::kProved, deadline).status());
  to_prove_ = false;
  return absl::OkStatus();
}

// Returns when the destination's CPU sees all writes and has cleared all zeros told so far.
absl::Status RdmaChannel::Confirm(Deadline deadline) {
  Message flush{};
  flush.type = MessageType::kFlush;
  return Ask(flush, MessageType::kFlushed, deadline).status();
}

absl::Status RdmaChannel::Flush(Deadline deadline) {
  if (!dead_.ok()) return dead_;
  absl::Status status = to_prove_ ? Prove(deadline) : Confirm(deadline);
  if (!status.ok()) return Fail(std::move(status));
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

}  // namespace ramferry::rdma
