#include "transport/dpdk/dpdk_stream.h"

#include <poll.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status.h"

namespace ramferry::dpdk {
namespace {

class DpdkStream final : public tcp::ByteStream {
 public:
  DpdkStream(std::shared_ptr<Poller> poller, std::shared_ptr<Connection> connection)
      : poller_(std::move(poller)), connection_(std::move(connection)) {}
  ~DpdkStream() override { connection_->Leave(); }
  DpdkStream(const DpdkStream&) = delete;
  DpdkStream& operator=(const DpdkStream&) = delete;

  absl::StatusOr<Progress> Send(std::span<const iovec> pieces, bool /*more*/) override {
    RETURN_IF_ERROR(connection_->status());
    Progress progress;
    for (const iovec& piece : pieces) {
      const size_t taken =
          connection_->Send({static_cast<const std::byte*>(piece.iov_base), piece.iov_len});
      progress.bytes += taken;
      if (taken < piece.iov_len) break;
    }
    if (progress.bytes == 0) progress.wait_for = POLLOUT;
    return progress;
  }

  absl::StatusOr<Progress> Receive(std::span<std::byte> into) override {
    ASSIGN_OR_RETURN(Progress progress, Borrow(borrowed_));
    progress.bytes = 0;
    for (const std::span<const std::byte> piece : borrowed_) {
      const size_t take = std::min(piece.size(), into.size() - progress.bytes);
      if (take == 0) break;
      std::memcpy(into.data() + progress.bytes, piece.data(), take);
      progress.bytes += take;
    }
    connection_->GiveBack(progress.bytes);
    return progress;
  }

  bool lends() const override { return true; }
  absl::StatusOr<Progress> Borrow(std::vector<std::span<const std::byte>>& pieces) override {
    // In this order: what came before the end, or before the connection was lost, counts.
    const absl::Status status = connection_->status();
    const bool ended = connection_->ended();
    connection_->Borrow(pieces);
    Progress progress;
    for (const auto& piece : pieces) progress.bytes += piece.size();
    if (progress.bytes > 0) return progress;
    if (ended) {
      progress.ended = true;
      return progress;
    }
    RETURN_IF_ERROR(status);
    progress.wait_for = POLLIN;
    return progress;
  }
  void GiveBack(size_t bytes) override { connection_->GiveBack(bytes); }

  absl::Status Wait(short wait_for, int interrupt_fd, Deadline deadline) override {
    const unsigned what = ((wait_for & POLLIN) != 0 ? Connection::kData : 0U) |
                          ((wait_for & POLLOUT) != 0 ? Connection::kRoom : 0U);
    return connection_->Wait(what, interrupt_fd, deadline);
  }
  void EndSending() override { connection_->EndSending(); }
  void Shutdown() override { connection_->Abort(); }

  absl::StatusOr<tcp::Key> ExportKey(std::string_view) const override {
    return absl::FailedPreconditionError("a plain connection has no session key");
  }
  bool encrypted() const override { return false; }

 private:
  const std::shared_ptr<Poller> poller_;
  const std::shared_ptr<Connection> connection_;
  std::vector<std::span<const std::byte>> borrowed_;
};

}  // namespace

std::unique_ptr<tcp::ByteStream> StreamOver(std::shared_ptr<Poller> poller,
                                            std::shared_ptr<Connection> connection) {
  return std::make_unique<DpdkStream>(std::move(poller), std::move(connection));
}

}  // namespace ramferry::dpdk
