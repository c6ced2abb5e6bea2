#include "hypervisor-glue/qemu/state_pipe.h"

#include <poll.h>
#include <sys/socket.h>

#include <utility>
#include <vector>

#include "base/status.h"

namespace ramferry {
namespace {

constexpr const char* kFdName = "ramferry-device-state";
constexpr size_t kReadSize = 128 * 1024;

}  // namespace

absl::StatusOr<std::unique_ptr<StatePipe>> StatePipe::Open(QmpClient& qmp) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoStatus(errno, "cannot make a socket pair for the device state");
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  RETURN_IF_ERROR(qmp.Execute("getfd", {{"fdname", kFdName}}, theirs.get()).status());
  return std::unique_ptr<StatePipe>(new StatePipe(std::move(ours)));
}

std::string StatePipe::uri() const {
  return std::string("fd:") + kFdName;
}

void StatePipe::StartReading(DeviceStateSink sink) {
  reader_ = std::thread([this, sink = std::move(sink)] { Read(sink); });
}

void StatePipe::Read(const DeviceStateSink& sink) {
  std::vector<std::byte> buffer(kReadSize);
  for (;;) {
    const ssize_t got = ::recv(ours_.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      result_ = ErrnoStatus(errno, "cannot read QEMU's device state");
      return;
    }
    if (got == 0) return;
    result_ = sink(std::span(buffer).first(static_cast<size_t>(got)));
    if (!result_.ok()) {
      ::shutdown(ours_.get(), SHUT_RDWR);  // QEMU must not think that it was taken
      return;
    }
  }
}

absl::Status StatePipe::WaitEnd() {
  if (reader_.joinable()) reader_.join();
  return result_;
}

absl::Status StatePipe::Write(std::span<const std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    pollfd ready{.fd = ours_.get(), .events = POLLOUT};
    if (::poll(&ready, 1, MillisecondsLeft(deadline)) == 0) {
      if (Clock::now() < deadline) continue;  // one poll waits a minute at most
      return absl::DeadlineExceededError("QEMU does not take its device state");
    }
    const ssize_t sent =
        ::send(ours_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (sent < 0) {
      return ErrnoStatus(errno, "QEMU refused its device state (its own log says why)");
    }
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
  return absl::OkStatus();
}

void StatePipe::CloseWrite() {
  ::shutdown(ours_.get(), SHUT_WR);
}

void StatePipe::Close() {
  if (ours_.valid()) ::shutdown(ours_.get(), SHUT_RDWR);
  if (reader_.joinable()) reader_.join();
  ours_.Reset();
}

}  // namespace ramferry
