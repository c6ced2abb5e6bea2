// The source's end of one page channel: frames go out from guest memory without a copy of ours, up
// to 512 of them with one system call. Long writes from a memory file go by sendfile: without a
// copy of the kernel's either.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/local_pages.h"
#include "base/unique_fd.h"
#include "transport/page_channel.h"
#include "transport/tcp/byte_stream.h"
#include "transport/tcp/frame.h"

namespace ramferry::tcp {

class TcpPageChannel final : public PageChannel, public InLocalPages {
 public:
  // Over a stream that the destination has accepted. `source`: the regions that pages come from, if
  // they are known; what is in a file of theirs goes out by sendfile. `name` begins every error
  // message; `path` is that of the capabilities.
  TcpPageChannel(std::unique_ptr<ByteStream> stream, std::span<const MappedRegion> source,
                 std::string name, std::chrono::milliseconds stall_timeout, std::string path = {});
  // Tells the destination that this end was meant, unless the channel has failed.
  ~TcpPageChannel() override;

  [[nodiscard]] const ChannelCapabilities& capabilities() const override { return capabilities_; }
  [[nodiscard]] absl::Status Write(std::span<const PageWrite> writes) override;
  [[nodiscard]] absl::Status WriteZeros(std::span<const PageZero> zeros) override;
  [[nodiscard]] absl::Status Flush(Deadline deadline) override;
  [[nodiscard]] ChannelStats stats() const override;
  void Abort() override;

 private:
  static constexpr size_t kFramesPerCall = 512;  // two iovecs each: IOV_MAX

  // The file that sendfile can take `write` from; -1: none, or it is not worth it.
  int FileOf(const PageWrite& write) const;
  // Sends pieces_[0, count), however often the socket fills up. `more`: see ByteStream::Send.
  absl::Status SendPieces(size_t count, Deadline deadline, bool more = false);
  absl::Status SendFile(int file, uint64_t offset, uint64_t length);
  // After one call of the stream: waits if it could do nothing.
  absl::Status TakeProgress(const absl::StatusOr<ByteStream::Progress>& sent, Deadline deadline);
  // Waits for `events`, or for what the destination has to say: that is then read.
  absl::Status WaitForPeer(short events, Deadline deadline);
  // Takes in what has come from the destination, without waiting. An error if it ended the channel.
  absl::Status ReadAnswers();
  absl::Status TakeAnswer(const FrameHeader& header, std::string_view text);
  absl::Status Fail(const absl::Status& status);

  std::unique_ptr<ByteStream> stream_;
  std::vector<MappedRegion> source_;  // empty: nothing goes by sendfile
  const std::string name_;
  const std::chrono::milliseconds stall_timeout_;
  const ChannelCapabilities capabilities_;

  absl::Status error_;  // the first; the channel is dead with it
  std::array<HeaderBytes, kFramesPerCall> headers_;
  std::array<iovec, 2 * kFramesPerCall> pieces_;
  uint64_t flush_ = 0;    // sequence of the last FLUSH sent ...
  uint64_t flushed_ = 0;  // ... and of the last FLUSHED that came
  std::array<std::byte, kHeaderBytes + kLargestErrorText> answer_;
  size_t answer_bytes_ = 0;

  std::atomic<bool> aborted_{false};
  UniqueFd abort_event_;  // readable once Abort() was called
  // Written by the worker, read by whoever reports.
  std::atomic<uint64_t> payload_{0};
  std::atomic<uint64_t> wire_{0};
};

}  // namespace ramferry::tcp
