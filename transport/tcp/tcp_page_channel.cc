#include "transport/tcp/tcp_page_channel.h"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "base/units.h"

namespace ramferry::tcp {
namespace {

// A shorter write is copied: cheaper than the system calls of its own that sendfile needs.
constexpr uint64_t kSendFileFrom = 64 * 1024;

void Add(std::atomic<uint64_t>& counter, uint64_t value) {  // only one thread writes
  counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

}  // namespace

TcpPageChannel::TcpPageChannel(std::unique_ptr<ByteStream> stream,
                               std::span<const MappedRegion> source, std::string name,
                               std::chrono::milliseconds stall_timeout, std::string path)
    : stream_(std::move(stream)),
      name_(std::move(name)),
      stall_timeout_(stall_timeout),
      capabilities_{.transport = "tcp",
                    .largest_write = ByteCount(kLargestWrite),
                    .batch = kFramesPerCall,
                    .one_sided = false,
                    .needs_registration = false,
                    .encrypted = stream_->encrypted(),
                    .path = std::move(path)},
      abort_event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (stream_->passes_pages()) source_.assign(source.begin(), source.end());
}

TcpPageChannel::~TcpPageChannel() {
  if (!error_.ok() || aborted_.load()) return;
  const HeaderBytes close = Encoded({.type = FrameType::kClose});
  // If it cannot go out at once the destination sees a channel that ended by accident, and says so.
  SendAll(*stream_, close, -1, Clock::now()).IgnoreError();
}

absl::Status TcpPageChannel::Write(std::span<const PageWrite> writes) {
  if (!error_.ok()) return error_;
  size_t frames = 0;  // encoded and not yet sent
  size_t pieces = 0;
  uint64_t payload = 0;
  for (size_t i = 0; i < writes.size(); ++i) {
    const PageWrite& write = writes[i];
    if (write.length > kLargestWrite) {
      return Fail(absl::InvalidArgumentError(
          fmt::format("a write of {} bytes is longer than the channel takes", write.length)));
    }
    Encode({.type = FrameType::kWrite,
            .region = write.region,
            .offset = write.offset,
            .length = write.length},
           headers_[frames].data());
    pieces_[pieces++] = {headers_[frames++].data(), kHeaderBytes};
    const int file = FileOf(write);
    if (file < 0) pieces_[pieces++] = {const_cast<std::byte*>(write.bytes), write.length};
    payload += write.length;
    if (file >= 0 || frames == kFramesPerCall || i + 1 == writes.size()) {
      RETURN_IF_ERROR(SendPieces(pieces, Deadline::max(), /*more=*/file >= 0));
      if (file >= 0) RETURN_IF_ERROR(SendFile(file, write.offset, write.length));
      Add(payload_, payload);
      frames = pieces = payload = 0;
    }
  }
  return absl::OkStatus();
}

int TcpPageChannel::FileOf(const PageWrite& write) const {
  if (write.length < kSendFileFrom || write.region >= source_.size()) return -1;
  const MappedRegion& region = source_[write.region];
  const bool in_place = write.bytes == region.address + write.offset;
  return in_place && region.can_pwrite() ? region.fd : -1;
}

absl::Status TcpPageChannel::WriteZeros(std::span<const PageZero> zeros) {
  if (!error_.ok()) return error_;
  while (!zeros.empty()) {
    const auto batch = zeros.first(std::min(zeros.size(), kFramesPerCall));
    for (size_t i = 0; i < batch.size(); ++i) {
      const PageZero& zero = batch[i];
      Encode({.type = FrameType::kZero,
              .region = zero.region,
              .offset = zero.offset,
              .length = zero.length},
             headers_[i].data());
    }
    pieces_[0] = {headers_.data(), batch.size() * kHeaderBytes};  // they lie one after the other
    RETURN_IF_ERROR(SendPieces(1, Deadline::max()));
    zeros = zeros.subspan(batch.size());
  }
  return absl::OkStatus();
}

absl::Status TcpPageChannel::Flush(Deadline deadline) {
  if (!error_.ok()) return error_;
  Encode({.type = FrameType::kFlush, .offset = ++flush_}, headers_[0].data());
  pieces_[0] = {headers_[0].data(), kHeaderBytes};
  RETURN_IF_ERROR(SendPieces(1, deadline));
  while (flushed_ != flush_) {
    if (absl::Status answers = ReadAnswers(); !answers.ok()) return Fail(answers);
    if (flushed_ == flush_) break;
    if (absl::Status waited = WaitForPeer(POLLIN, deadline); !waited.ok()) {
      if (!absl::IsDeadlineExceeded(waited)) return Fail(waited);
      return Fail(absl::DeadlineExceededError(
          "the destination did not confirm in time that it holds the pages"));
    }
  }
  return absl::OkStatus();
}

ChannelStats TcpPageChannel::stats() const {
  return {.payload = ByteCount(payload_.load(std::memory_order_relaxed)),
          .wire = ByteCount(wire_.load(std::memory_order_relaxed))};
}

void TcpPageChannel::Abort() {
  aborted_.store(true);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(abort_event_.get(), &one, sizeof one);
  stream_->Shutdown();
}

absl::Status TcpPageChannel::SendPieces(size_t count, Deadline deadline, bool more) {
  std::span<iovec> rest = std::span(pieces_).first(count);
  while (!rest.empty()) {
    const auto sent = stream_->Send(rest, more);
    RETURN_IF_ERROR(TakeProgress(sent, deadline));
    size_t bytes = sent->bytes;
    while (!rest.empty() && bytes >= rest.front().iov_len) {
      bytes -= rest.front().iov_len;
      rest = rest.subspan(1);
    }
    if (bytes > 0) {
      rest.front().iov_base = static_cast<std::byte*>(rest.front().iov_base) + bytes;
      rest.front().iov_len -= bytes;
    }
  }
  return absl::OkStatus();
}

absl::Status TcpPageChannel::SendFile(int file, uint64_t offset, uint64_t length) {
  while (length > 0) {
    const auto sent = stream_->SendFile(file, offset, length);
    RETURN_IF_ERROR(TakeProgress(sent, Deadline::max()));
    offset += sent->bytes;
    length -= sent->bytes;
  }
  return absl::OkStatus();
}

absl::Status TcpPageChannel::TakeProgress(const absl::StatusOr<ByteStream::Progress>& sent,
                                          Deadline deadline) {
  if (!sent.ok()) {
    // The destination may have said why before it closed.
    if (absl::Status answers = ReadAnswers(); !answers.ok()) return Fail(answers);
    return Fail(sent.status());
  }
  Add(wire_, sent->bytes);
  if (sent->bytes > 0) return absl::OkStatus();
  const Deadline stalled = In(stall_timeout_);
  absl::Status waited = WaitForPeer(sent->wait_for, std::min(stalled, deadline));
  if (absl::IsDeadlineExceeded(waited)) {
    waited = absl::DeadlineExceededError(
        stalled < deadline
            ? fmt::format("the destination took nothing for {} ms", stall_timeout_.count())
            : "the destination did not take all pages in time");
  }
  return waited.ok() ? waited : Fail(waited);
}

absl::Status TcpPageChannel::WaitForPeer(short events, Deadline deadline) {
  RETURN_IF_ERROR(stream_->Wait(static_cast<short>(events | POLLIN), abort_event_.get(), deadline));
  return ReadAnswers();
}

absl::Status TcpPageChannel::ReadAnswers() {
  while (true) {
    auto got = stream_->Receive(std::span(answer_).subspan(answer_bytes_));
    if (!got.ok()) return got.status();
    if (got->ended) {
      return absl::UnavailableError("the destination closed the channel without saying why");
    }
    if (got->bytes == 0) return absl::OkStatus();
    answer_bytes_ += got->bytes;
    while (answer_bytes_ >= kHeaderBytes) {
      const FrameHeader header = Decode(answer_.data());
      size_t used = kHeaderBytes;
      std::string_view text;
      if (header.type == FrameType::kError) {
        const size_t length = std::min<uint64_t>(header.length, kLargestErrorText);
        if (answer_bytes_ < kHeaderBytes + length) break;
        text = {reinterpret_cast<const char*>(answer_.data()) + kHeaderBytes, length};
        used += length;
      }
      RETURN_IF_ERROR(TakeAnswer(header, text));
      std::copy(answer_.begin() + static_cast<std::ptrdiff_t>(used),
                answer_.begin() + static_cast<std::ptrdiff_t>(answer_bytes_), answer_.begin());
      answer_bytes_ -= used;
    }
  }
}

absl::Status TcpPageChannel::TakeAnswer(const FrameHeader& header, std::string_view text) {
  if (header.type == FrameType::kFlushed && header.offset == flushed_ + 1 &&
      header.offset <= flush_) {
    flushed_ = header.offset;
    return absl::OkStatus();
  }
  if (header.type != FrameType::kError) {
    return absl::InvalidArgumentError("the destination sent an answer that nobody asked for");
  }
  std::string shown(text);
  for (char& c : shown) {  // a peer's text goes to a terminal
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  }
  const std::string message = fmt::format("the destination gave the channel up: {}", shown);
  switch (static_cast<ErrorCode>(header.code)) {
    case ErrorCode::kBadFrame:
      return absl::InvalidArgumentError(message);
    case ErrorCode::kNoMemory:
      return absl::ResourceExhaustedError(message);
    case ErrorCode::kStopped:
      return absl::UnavailableError(message);
    case ErrorCode::kInternal:
      break;
  }
  return absl::InternalError(message);
}

absl::Status TcpPageChannel::Fail(const absl::Status& status) {
  error_ = aborted_.load() ? absl::CancelledError(name_ + ": aborted") : Annotate(status, name_);
  return error_;
}

}  // namespace ramferry::tcp
