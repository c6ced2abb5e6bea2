#include "transport/tcp/byte_stream.h"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "base/status.h"

namespace ramferry::tcp {
namespace {

absl::Status ConnectionLost(int error) {
  if (error == ETIMEDOUT) {
    return absl::UnavailableError("the connection is lost: the other host does not answer");
  }
  return absl::UnavailableError(ErrnoStatus(error, "the connection is lost").message());
}

class Plain final : public ByteStream {
 public:
  explicit Plain(UniqueFd socket) : socket_(std::move(socket)) {}

  absl::StatusOr<Progress> Send(std::span<const iovec> pieces) override {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces.data());
    message.msg_iovlen = pieces.size();
    while (true) {
      const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent >= 0) return Progress{.bytes = static_cast<size_t>(sent)};
      if (errno == EAGAIN || errno == EWOULDBLOCK) return Progress{.wait_for = POLLOUT};
      if (errno != EINTR) return ConnectionLost(errno);
    }
  }

  absl::StatusOr<Progress> Receive(std::span<std::byte> into) override {
    while (true) {
      const ssize_t got = ::recv(socket_.get(), into.data(), into.size(), MSG_DONTWAIT);
      if (got > 0) return Progress{.bytes = static_cast<size_t>(got)};
      if (got == 0) return Progress{.ended = true};
      if (errno == EAGAIN || errno == EWOULDBLOCK) return Progress{.wait_for = POLLIN};
      if (errno != EINTR) return ConnectionLost(errno);
    }
  }

  absl::StatusOr<Key> ExportKey(std::string_view) const override {
    return absl::FailedPreconditionError("a plain connection has no session key");
  }
  bool encrypted() const override { return false; }
  int fd() const override { return socket_.get(); }

 private:
  UniqueFd socket_;
};

}  // namespace

std::unique_ptr<ByteStream> PlainStream(UniqueFd socket) {
  return std::make_unique<Plain>(std::move(socket));
}

absl::Status WaitFor(int fd, short events, int interrupt_fd, Deadline deadline) {
  while (true) {
    pollfd waiting[2] = {{.fd = fd, .events = events}, {.fd = interrupt_fd, .events = POLLIN}};
    const int ready = ::poll(waiting, 2, MillisecondsLeft(deadline));
    if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, "cannot wait for a connection");
    if (ready > 0) {
      if (waiting[1].revents != 0) return absl::CancelledError("interrupted");
      return absl::OkStatus();
    }
    if (Clock::now() >= deadline) return absl::DeadlineExceededError("nothing came in time");
  }
}

absl::Status SendAll(ByteStream& stream, std::span<const std::byte> bytes, int interrupt_fd,
                     Deadline deadline) {
  while (!bytes.empty()) {
    const iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
    ASSIGN_OR_RETURN(const ByteStream::Progress done, stream.Send({&piece, 1}));
    bytes = bytes.subspan(done.bytes);
    if (done.bytes == 0) {
      RETURN_IF_ERROR(WaitFor(stream.fd(), done.wait_for, interrupt_fd, deadline));
    }
  }
  return absl::OkStatus();
}

absl::Status ReceiveAll(ByteStream& stream, std::span<std::byte> bytes, int interrupt_fd,
                        Deadline deadline) {
  while (!bytes.empty()) {
    ASSIGN_OR_RETURN(const ByteStream::Progress done, stream.Receive(bytes));
    if (done.ended) return absl::UnavailableError("the peer closed the connection");
    bytes = bytes.subspan(done.bytes);
    if (done.bytes == 0) {
      RETURN_IF_ERROR(WaitFor(stream.fd(), done.wait_for, interrupt_fd, deadline));
    }
  }
  return absl::OkStatus();
}

}  // namespace ramferry::tcp
