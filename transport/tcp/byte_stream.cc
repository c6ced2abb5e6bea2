#include "transport/tcp/byte_stream.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/no_sigpipe.h"
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

  absl::StatusOr<Progress> Send(std::span<const iovec> pieces, bool more) override {
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT | (more ? MSG_MORE : 0);
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces.data());
    message.msg_iovlen = pieces.size();
    while (true) {
      const ssize_t sent = ::sendmsg(socket_.get(), &message, flags);
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

  bool passes_pages() const override { return true; }

  absl::StatusOr<Progress> SendFile(int file, uint64_t offset, uint64_t length) override {
    const NoSigpipe no_sigpipe;  // sendfile has no MSG_NOSIGNAL
    auto position = static_cast<off_t>(offset);
    while (true) {
      const ssize_t sent = ::sendfile(socket_.get(), file, &position, length);
      if (sent > 0) return Progress{.bytes = static_cast<size_t>(sent)};
      if (sent == 0) return absl::InternalError("guest memory ends before its region does");
      if (errno == EAGAIN || errno == EWOULDBLOCK) return Progress{.wait_for = POLLOUT};
      if (errno != EINTR) return ConnectionLost(errno);
    }
  }

  absl::StatusOr<Progress> ReceiveToPipe(int pipe, uint64_t length) override {
    while (true) {
      const ssize_t got = ::splice(socket_.get(), nullptr, pipe, nullptr, length,
                                   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
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

  absl::Status Wait(short wait_for, int interrupt_fd, Deadline deadline) override {
    return WaitFor(socket_.get(), wait_for, interrupt_fd, deadline);
  }
  void EndSending() override { ::shutdown(socket_.get(), SHUT_WR); }
  void Shutdown() override { ::shutdown(socket_.get(), SHUT_RDWR); }

 private:
  const UniqueFd socket_;
};

}  // namespace

absl::StatusOr<ByteStream::Progress> ByteStream::SendFile(int, uint64_t, uint64_t) {
  return absl::UnimplementedError("this stream does not send files");
}

absl::StatusOr<ByteStream::Progress> ByteStream::ReceiveToPipe(int, uint64_t) {
  return absl::UnimplementedError("this stream does not receive into pipes");
}

absl::StatusOr<ByteStream::Progress> ByteStream::Borrow(std::vector<std::span<const std::byte>>&) {
  return absl::UnimplementedError("this stream does not lend what it received");
}

void ByteStream::GiveBack(size_t) {}

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
      RETURN_IF_ERROR(stream.Wait(done.wait_for, interrupt_fd, deadline));
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
      RETURN_IF_ERROR(stream.Wait(done.wait_for, interrupt_fd, deadline));
    }
  }
  return absl::OkStatus();
}

}  // namespace ramferry::tcp
