// RdmaChannel: what the completion queue says, and waiting for it.
#include <array>
#include <chrono>
#include <thread>

#include "base/status.h"
#include "fmt/format.h"
#include "transport/rdma/rdma_channel.h"

namespace ramferry::rdma {
namespace {

constexpr auto kReasonTime = std::chrono::milliseconds(500);

// A busy look at the completion queue costs less than going to sleep for it, for a while.
constexpr auto kSpinTime = std::chrono::microseconds(20);
// When no wake-up may be waited for: some milliseconds of looking, in which a peer that lives
// answers. When it does not, the news of why come only to who sleeps (Link::Wait).
constexpr int kMostLooks = 10'000;

}  // namespace

absl::Status RdmaChannel::WaitForRoom(uint32_t requests) {
  if (in_flight_ + requests > link_->limits().send_depth) ++stats_.full;
  while (in_flight_ + requests > link_->limits().send_depth) {
    RETURN_IF_ERROR(WaitForEvent(Deadline::max()));
  }
  return absl::OkStatus();
}

// Looks for completions for a while, then sleeps until there is one or the deadline.
absl::Status RdmaChannel::WaitForEvent(Deadline deadline) {
  const uint32_t before = in_flight_;
  const Deadline spin_until = In(kSpinTime);
  for (int looks = 1;; ++looks) {
    RETURN_IF_ERROR(Reap());
    if (in_flight_ != before || answered_) return absl::OkStatus();
    if (waiting_ == Waiting::kSleep) break;
    if (waiting_ == Waiting::kAdapt && Clock::now() >= spin_until) break;
    if (waiting_ == Waiting::kPoll) {
      if (looks >= kMostLooks) break;
      std::this_thread::yield();  // a software device may need this very CPU to get on
    }
  }
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
      if (!IsMessage(completion)) {
        return absl::DataLossError("the destination sent what is no RDMA message");
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

}  // namespace ramferry::rdma
