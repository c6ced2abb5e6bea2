#include "transport/control/stream.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "base/status.h"
#include "transport/control/codec.h"

namespace ramferry {
namespace {

// A peer that answers keepalives but reads nothing for so long is given up.
constexpr auto kSendTimeout = std::chrono::seconds(30);

}  // namespace

void ControlStream::SetPeer(std::string name, std::string address) {
  peer_name_ = std::move(name);
  peer_address_ = std::move(address);
}

absl::Status ControlStream::LossLocked() const {
  if (closed_) return absl::UnavailableError("the control channel was closed by this side");
  if (!end_status_.ok()) return end_status_;
  if (lost_ || write_failed_) {
    return absl::UnavailableError(fmt::format("the connection to {} is lost", peer_name_));
  }
  return absl::UnavailableError(fmt::format("{} has closed the connection", peer_name_));
}

absl::Status ControlStream::Send(const ControlMessage& message) {
  auto frame = std::make_unique<v1::Frame>();
  RETURN_IF_ERROR(EncodeFrame(message, *frame));
  std::unique_lock lock(mutex_);
  const auto dead = [this] { return closed_ || read_over_ || write_failed_ || ended_; };
  const bool woken = changed_.wait_for(lock, kSendTimeout,
                                       [&] { return dead() || outbound_.size() < kQueueLength; });
  if (!woken) {
    cancel_wanted_ = true;
    Pump(lock);
    return absl::UnavailableError(
        fmt::format("{} has taken no message for {} seconds", peer_name_, kSendTimeout.count()));
  }
  if (dead()) return LossLocked();
  outbound_.push_back(std::move(frame));
  Pump(lock);
  return absl::OkStatus();
}

absl::StatusOr<ControlMessage> ControlStream::Receive(Deadline deadline) {
  std::unique_lock lock(mutex_);
  // A client waits for the end of the call too, for it brings the reason.
  const auto over = [this] { return read_over_ && (side_ == Side::kServer || ended_); };
  const bool woken = changed_.wait_until(lock, deadline, [&] {
    return closed_ || !inbound_.empty() || !nonsense_.ok() || over() || ended_;
  });
  if (!woken) {
    return absl::DeadlineExceededError(fmt::format("{} has sent nothing in time", peer_name_));
  }
  if (closed_) return LossLocked();
  if (!inbound_.empty()) {
    ControlMessage message = std::move(inbound_.front());
    inbound_.pop_front();
    Pump(lock);
    return message;
  }
  if (!nonsense_.ok()) return nonsense_;
  return LossLocked();
}

void ControlStream::Close() {
  std::unique_lock lock(mutex_);
  closed_ = true;
  inbound_.clear();
  changed_.notify_all();
  Pump(lock);
}

void ControlStream::Cancel() {
  std::unique_lock lock(mutex_);
  cancel_wanted_ = true;
  Pump(lock);
}

bool ControlStream::WaitEnded(Deadline deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [this] { return ended_; });
}

ControlStream::Step ControlStream::Next() {
  if (released_ || (side_ == Side::kServer && ending_)) return Step::kNothing;
  if (cancel_wanted_ && !cancelled_) {
    cancelled_ = true;
    return Step::kCancel;
  }
  if (!begun_) return Step::kNothing;
  const bool room = inbound_.size() < kQueueLength || closed_ || !nonsense_.ok();
  if (!reading_ && !read_over_ && room) {
    reading_ = true;
    return Step::kRead;
  }
  if (writing_) return Step::kNothing;
  if ((read_over_ || write_failed_) && !outbound_.empty()) {
    outbound_.clear();
    changed_.notify_all();
  }
  if (!outbound_.empty() && !ending_) {
    writing_ = true;
    return Step::kWrite;
  }
  if (side_ == Side::kServer) {
    if (!closed_ && !read_over_) return Step::kNothing;
    ending_ = true;
    return Step::kEnd;
  }
  if (!read_over_) {
    if (!closed_ || ending_ || write_failed_) return Step::kNothing;
    ending_ = true;
    return Step::kEnd;
  }
  if (ending_ && !end_done_) return Step::kNothing;
  released_ = true;
  return Step::kRelease;
}

void ControlStream::Pump(std::unique_lock<std::mutex>& lock) {
  if (pumping_) return;  // the thread that pumps will look again
  pumping_ = true;
  for (Step step = Next(); step != Step::kNothing; step = Next()) {
    const v1::Frame* out = step == Step::kWrite ? outbound_.front().get() : nullptr;
    lock.unlock();
    switch (step) {
      case Step::kRead:
        StartRead(&reading_frame_);
        break;
      case Step::kWrite:
        StartWrite(out);
        break;
      case Step::kEnd:
        StartEnd();
        break;
      case Step::kRelease:
        Release();
        break;
      case Step::kCancel:
        StartCancel();
        break;
      case Step::kNothing:
        break;
    }
    lock.lock();
  }
  pumping_ = false;
}

void ControlStream::Begin() {
  std::unique_lock lock(mutex_);
  begun_ = true;
  Pump(lock);
}

void ControlStream::ReadDone(bool ok) {
  absl::StatusOr<ControlMessage> message = absl::UnknownError("");
  if (ok) message = DecodeFrame(reading_frame_);  // ours again: reading_ is still set
  std::unique_lock lock(mutex_);
  reading_ = false;
  if (!ok) {
    read_over_ = true;
  } else if (!closed_ && nonsense_.ok()) {  // after nonsense nothing can be trusted any more
    if (message.ok()) {
      inbound_.push_back(*std::move(message));
    } else {
      nonsense_ = Annotate(message.status(), peer_name_ + " sent nonsense");
    }
  }
  changed_.notify_all();
  Pump(lock);
}

void ControlStream::WriteDone(bool ok) {
  std::unique_lock lock(mutex_);
  writing_ = false;
  outbound_.pop_front();
  if (!ok) write_failed_ = true;
  changed_.notify_all();
  Pump(lock);
}

void ControlStream::EndDone() {
  std::unique_lock lock(mutex_);
  end_done_ = true;
  Pump(lock);
}

void ControlStream::Lost() {
  const std::lock_guard lock(mutex_);
  lost_ = true;
}

void ControlStream::Ended(absl::Status status) {
  const std::lock_guard lock(mutex_);
  ended_ = true;
  read_over_ = true;
  end_status_ = std::move(status);
  changed_.notify_all();
}

}  // namespace ramferry
