// A connected, non-blocking byte stream: a plain socket here, TLS in tls.h. What both ends of a
// page channel are written on.
//
// One thread uses a stream at a time. Errors: Unavailable when the connection is lost.
#pragma once

#include <poll.h>
#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/unique_fd.h"

namespace ramferry::tcp {

using Key = std::array<std::byte, 32>;

class ByteStream {
 public:
  // What one call did. No bytes and not `ended`: wait for `wait_for` (POLLIN or POLLOUT), then call
  // again with the same arguments.
  struct Progress {
    size_t bytes = 0;
    short wait_for = 0;
    bool ended = false;  // the peer will send nothing more
  };

  virtual ~ByteStream() = default;

  [[nodiscard]] virtual absl::StatusOr<Progress> Send(std::span<const iovec> pieces) = 0;
  [[nodiscard]] virtual absl::StatusOr<Progress> Receive(std::span<std::byte> into) = 0;

  // A key that only the two ends of this very session can know, different for every `context`.
  // FailedPrecondition on a plain socket.
  [[nodiscard]] virtual absl::StatusOr<Key> ExportKey(std::string_view context) const = 0;
  [[nodiscard]] virtual bool encrypted() const = 0;
  [[nodiscard]] virtual int fd() const = 0;
};

[[nodiscard]] std::unique_ptr<ByteStream> PlainStream(UniqueFd socket);

// Waits until `fd` has one of `events`, `interrupt_fd` (-1: none) is readable, or the deadline.
// OK: look again. Cancelled: interrupted. DeadlineExceeded: nothing happened.
[[nodiscard]] absl::Status WaitFor(int fd, short events, int interrupt_fd, Deadline deadline);

// All of `bytes`, or an error. For handshakes and other small things.
[[nodiscard]] absl::Status SendAll(ByteStream& stream, std::span<const std::byte> bytes,
                                   int interrupt_fd, Deadline deadline);
[[nodiscard]] absl::Status ReceiveAll(ByteStream& stream, std::span<std::byte> bytes,
                                      int interrupt_fd, Deadline deadline);

}  // namespace ramferry::tcp
