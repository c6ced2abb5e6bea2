// A connected, non-blocking byte stream: a plain socket here, TLS over any other in tls.h, a TCP of
// our own beside the kernel's in transport/dpdk. What both ends of a page channel are written on.
//
// One thread uses a stream at a time. Errors: Unavailable when the connection is lost.
#pragma once

#include <poll.h>
#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

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

  // `more`: something follows at once, a packet need not leave yet.
  [[nodiscard]] virtual absl::StatusOr<Progress> Send(std::span<const iovec> pieces,
                                                      bool more = false) = 0;
  [[nodiscard]] virtual absl::StatusOr<Progress> Receive(std::span<std::byte> into) = 0;

  // Whether the two below work: the kernel then hands pages of a file over without a copy.
  [[nodiscard]] virtual bool passes_pages() const { return false; }
  // Bytes [offset, offset + length) of `file` (sendfile(2)). What the peer gets is what the file
  // holds when it is taken off the wire, or later: not before the peer has confirmed is it settled.
  [[nodiscard]] virtual absl::StatusOr<Progress> SendFile(int file, uint64_t offset,
                                                          uint64_t length);
  // Up to `length` bytes into `pipe`, which must have room (splice(2)).
  [[nodiscard]] virtual absl::StatusOr<Progress> ReceiveToPipe(int pipe, uint64_t length);

  // Whether the two below work: what came is then shown where it lies, and copied once only.
  [[nodiscard]] virtual bool lends() const { return false; }
  // What has come and was not yet given back, in its order; the pieces stay until they are.
  // `bytes` of the progress is their sum.
  [[nodiscard]] virtual absl::StatusOr<Progress> Borrow(
      std::vector<std::span<const std::byte>>& pieces);
  // The first `bytes` of what was borrowed are done with.
  virtual void GiveBack(size_t bytes);

  // Waits until a call that said `wait_for` may get on, `interrupt_fd` (-1: none) is readable, or
  // the deadline. OK: try again. Cancelled: interrupted. DeadlineExceeded: nothing happened.
  [[nodiscard]] virtual absl::Status Wait(short wait_for, int interrupt_fd, Deadline deadline) = 0;
  // Nothing more will be sent: the peer sees the end after what was sent before.
  virtual void EndSending() = 0;
  // Ends both directions: calls under way fail soon. The one call that is thread-safe.
  virtual void Shutdown() = 0;

  // A key that only the two ends of this very session can know, different for every `context`.
  // FailedPrecondition on a plain socket.
  [[nodiscard]] virtual absl::StatusOr<Key> ExportKey(std::string_view context) const = 0;
  [[nodiscard]] virtual bool encrypted() const = 0;
};

[[nodiscard]] std::unique_ptr<ByteStream> PlainStream(UniqueFd socket);

// Waits until `fd` has one of `events`, `interrupt_fd` (-1: none) is readable, or the deadline.
// OK: look again. Cancelled: interrupted. DeadlineExceeded: nothing happened.
// For those who make streams.
[[nodiscard]] absl::Status WaitFor(int fd, short events, int interrupt_fd, Deadline deadline);

// All of `bytes`, or an error. For handshakes and other small things.
[[nodiscard]] absl::Status SendAll(ByteStream& stream, std::span<const std::byte> bytes,
                                   int interrupt_fd, Deadline deadline);
[[nodiscard]] absl::Status ReceiveAll(ByteStream& stream, std::span<std::byte> bytes,
                                      int interrupt_fd, Deadline deadline);

}  // namespace ramferry::tcp
