#include "transport/tcp/landing_site.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/local_pages.h"
#include "base/status.h"
#include "base/units.h"
#include "transport/tcp/frame.h"
#include "transport/tcp/frame_parser.h"
#include "transport/tcp/landing.h"

namespace ramferry::tcp {
namespace {

using namespace std::chrono_literals;

// Small enough to stay in the cache between recv and pwrite, large enough that system calls do not
// count. Measured with bench/channel_bench: 128 KiB to 1 MiB are alike within the noise, 64 KiB and
// 2 MiB cost more.
constexpr size_t kBufferBytes = 256 * 1024;

// From so much payload on, the kernel moves it from the socket into the memory file itself: one
// copy and not two. What a pipe may hold without privileges is /proc/sys/fs/pipe-max-size, 1 MiB.
constexpr uint64_t kSpliceFrom = 64 * 1024;
constexpr int kPipeBytes = 1 << 20;

// At a time, of what a source still sends after its channel was given up.
constexpr size_t kDiscardBytes = 16 * 1024;

// Lands what the parser let through, counts it, and answers flushes.
class Lander final : public FrameSink {
 public:
  Lander(std::span<const MappedRegion> regions, ByteStream& stream, int stop_fd,
         std::chrono::milliseconds stall_timeout, std::atomic<uint64_t>& payload)
      : landing_(regions),
        stream_(stream),
        stop_fd_(stop_fd),
        stall_timeout_(stall_timeout),
        payload_(payload) {}

  absl::Status OnWrite(RegionId region, uint64_t offset,
                       std::span<const std::byte> bytes) override {
    landed_ += bytes.size();
    return landing_.Write(region, offset, bytes);
  }
  // Of the frame that the parser is in: also less than a page.
  absl::Status TakePart(const FrameParser::Pending& pending, std::span<const std::byte> bytes) {
    landed_ += bytes.size();
    return landing_.Write(pending.region, pending.offset, bytes);
  }
  absl::Status TakePipe(RegionId region, uint64_t offset, int pipe, uint64_t length) {
    RETURN_IF_ERROR(landing_.WriteFromPipe(region, offset, pipe, length));
    payload_.fetch_add(length, std::memory_order_relaxed);
    return absl::OkStatus();
  }
  absl::Status OnZero(RegionId region, uint64_t offset, uint64_t length) override {
    return landing_.Zero(region, offset, length);
  }
  absl::Status OnFlush(uint64_t sequence) override {
    RETURN_IF_ERROR(Settle());
    return SendAll(stream_, Encoded({.type = FrameType::kFlushed, .offset = sequence}), stop_fd_,
                   In(stall_timeout_));
  }
  absl::Status Settle() {
    RETURN_IF_ERROR(landing_.Settle());
    payload_.fetch_add(std::exchange(landed_, 0), std::memory_order_relaxed);
    return absl::OkStatus();
  }

 private:
  Landing landing_;
  ByteStream& stream_;
  const int stop_fd_;
  const std::chrono::milliseconds stall_timeout_;
  std::atomic<uint64_t>& payload_;
  uint64_t landed_ = 0;  // of it, not yet added
};

struct Pipe {
  UniqueFd out;
  UniqueFd in;

  // None where `wanted` is false, or where the process has no descriptors left.
  static Pipe OpenIf(bool wanted) {
    int ends[2];
    if (!wanted || ::pipe2(ends, O_CLOEXEC) != 0) return {};
    Pipe pipe{.out = UniqueFd(ends[0]), .in = UniqueFd(ends[1])};
    ::fcntl(ends[1], F_SETPIPE_SZ, kPipeBytes);  // else the usual 64 KiB
    return pipe;
  }
  [[nodiscard]] bool valid() const { return in.valid(); }
};

ErrorCode CodeFor(const absl::Status& why) {
  if (absl::IsInvalidArgument(why)) return ErrorCode::kBadFrame;
  if (absl::IsResourceExhausted(why)) return ErrorCode::kNoMemory;
  if (absl::IsCancelled(why)) return ErrorCode::kStopped;
  return ErrorCode::kInternal;
}

}  // namespace

LandingSite::LandingSite(std::span<const MappedRegion> regions,
                         std::span<const ChannelPlace> channels,
                         std::chrono::milliseconds stall_timeout)
    : regions_(regions.begin(), regions.end()),
      places_(channels.begin(), channels.end()),
      stall_timeout_(stall_timeout),
      stop_event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      counters_(channels.size()) {}

LandingSite::~LandingSite() {
  Stop();
}

void LandingSite::Deliver(std::unique_ptr<ByteStream> stream, const std::string& peer,
                          size_t index) {
  const std::lock_guard lock(mutex_);
  if (stopped_.load()) return;
  threads_.emplace_back(
      [this, stream = std::move(stream), peer, index] { Serve(*stream, peer, index); });
}

absl::Status LandingSite::status() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

ChannelStats LandingSite::stats() const {
  ChannelStats stats;
  for (const Counters& counters : counters_) {
    stats.payload += ByteCount(counters.payload.load(std::memory_order_relaxed));
    stats.wire += ByteCount(counters.wire.load(std::memory_order_relaxed));
  }
  return stats;
}

void LandingSite::Stop() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard lock(mutex_);
    stopped_.store(true);
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(stop_event_.get(), &one, sizeof one);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

void LandingSite::Serve(ByteStream& stream, const std::string& peer, size_t index) {
  if (const absl::Status bound = BindThisThread(places_[index].cpus); !bound.ok()) {
    spdlog::warn("{}", std::string(bound.message()));  // slower, and no harm
  }
  NameThisThread("rf-land", index);
  absl::Status end =
      stream.lends() ? Borrow(stream, counters_[index]) : Receive(stream, counters_[index]);
  if (end.ok()) return;
  if (stopped_.load()) end = absl::CancelledError("the destination ended the migration");
  if (!absl::IsCancelled(end)) {
    const absl::Status error = Annotate(end, fmt::format("page channel from {}", peer));
    spdlog::warn("{}", std::string(error.message()));
    const std::lock_guard lock(mutex_);
    if (error_.ok()) error_ = error;
  }
  GiveUp(stream, end);
}

absl::Status LandingSite::Receive(ByteStream& stream, Counters& counters) {
  LocalVector<std::byte> memory(kBufferBytes + kPageBytes);
  std::span<std::byte> buffer(memory);
  Lander lander(regions_, stream, stop_event_.get(), stall_timeout_, counters.payload);
  FrameParser parser(regions_, lander);
  const Pipe pipe = Pipe::OpenIf(stream.passes_pages());
  size_t held = 0;  // bytes at the front of the buffer that wait for the rest of a header or page
  bool in_frame = false;
  bool by_pipe = false;  // the frame that is coming in; between two frames: the one before
  while (!stopped_.load(std::memory_order_relaxed)) {
    const FrameParser::Pending pending = parser.pending();
    const bool goes_on = std::exchange(in_frame, pending.length > 0) && by_pipe;
    if (in_frame && !goes_on) {
      by_pipe =
          pipe.valid() && pending.length >= kSpliceFrom && regions_[pending.region].can_pwrite();
    }
    ByteStream::Progress got;
    if (in_frame && by_pipe && held == 0) {
      ASSIGN_OR_RETURN(got, stream.ReceiveToPipe(pipe.in.get(), pending.length));
      RETURN_IF_ERROR(lander.TakePipe(pending.region, pending.offset, pipe.out.get(), got.bytes));
      parser.Landed(got.bytes);
    } else {
      // Beside long frames no more than must go through the buffer: a header, the rest of a page.
      const size_t most = !by_pipe ? buffer.size() : in_frame ? kPageBytes : kHeaderBytes;
      ASSIGN_OR_RETURN(got, stream.Receive(buffer.first(most).subspan(held)));
      held += got.bytes;
      ASSIGN_OR_RETURN(const size_t used, parser.Consume(buffer.first(held)));
      RETURN_IF_ERROR(lander.Settle());
      held -= used;
      if (held > 0) std::memmove(buffer.data(), buffer.data() + used, held);
    }
    counters.wire.fetch_add(got.bytes, std::memory_order_relaxed);
    if (got.ended) {
      if (parser.closed()) return absl::OkStatus();
      return absl::UnavailableError("the source went away without closing the channel");
    }
    if (got.bytes == 0) {
      // A source with nothing to send is no fault; the socket's own timers notice a dead one.
      const absl::Status waited = stream.Wait(got.wait_for, stop_event_.get(), In(60s));
      if (!waited.ok() && !absl::IsDeadlineExceeded(waited)) return waited;
    }
  }
  return absl::CancelledError("stopped");
}

// From where the stream has put it into guest memory, with one copy. What is borrowed is settled
// before it goes back.
absl::Status LandingSite::Borrow(ByteStream& stream, Counters& counters) {
  Lander lander(regions_, stream, stop_event_.get(), stall_timeout_, counters.payload);
  FrameParser parser(regions_, lander);
  HeaderBytes header;
  size_t held = 0;  // bytes of it that have come
  std::vector<std::span<const std::byte>> pieces;
  while (!stopped_.load(std::memory_order_relaxed)) {
    ASSIGN_OR_RETURN(const ByteStream::Progress got, stream.Borrow(pieces));
    for (std::span<const std::byte> piece : pieces) {
      while (!piece.empty()) {
        const FrameParser::Pending pending = parser.pending();
        size_t take = 0;
        if (pending.length > 0) {
          take = std::min<uint64_t>(pending.length, piece.size());
          RETURN_IF_ERROR(lander.TakePart(pending, piece.first(take)));
          parser.Landed(take);
        } else {
          take = std::min(header.size() - held, piece.size());
          std::memcpy(header.data() + held, piece.data(), take);
          held += take;
          if (held == header.size()) {
            RETURN_IF_ERROR(parser.Consume(header).status());
            held = 0;
          }
        }
        piece = piece.subspan(take);
      }
    }
    RETURN_IF_ERROR(lander.Settle());
    stream.GiveBack(got.bytes);
    counters.wire.fetch_add(got.bytes, std::memory_order_relaxed);
    if (got.ended) {
      if (parser.closed()) return absl::OkStatus();
      return absl::UnavailableError("the source went away without closing the channel");
    }
    if (got.bytes == 0) {
      const absl::Status waited = stream.Wait(got.wait_for, stop_event_.get(), In(60s));
      if (!waited.ok() && !absl::IsDeadlineExceeded(waited)) return waited;
    }
  }
  return absl::CancelledError("stopped");
}

// Tells the source why, and stays a moment to take in what it still sends: a socket closed with
// unread bytes is reset, and a reset may overtake the reason.
void LandingSite::GiveUp(ByteStream& stream, const absl::Status& why) const {
  const std::string text(why.message().substr(0, kLargestErrorText));
  std::vector<std::byte> frame(kHeaderBytes + text.size());
  Encode({.type = FrameType::kError,
          .code = static_cast<uint32_t>(CodeFor(why)),
          .length = text.size()},
         frame.data());
  std::memcpy(frame.data() + kHeaderBytes, text.data(), text.size());
  const Deadline deadline = In(stopped_.load() ? 0s : 1s);
  if (!SendAll(stream, frame, stop_event_.get(), deadline).ok()) return;
  stream.EndSending();
  std::vector<std::byte> discarded(kDiscardBytes);
  while (!stopped_.load() && Clock::now() < deadline) {
    const auto got = stream.Receive(discarded);
    if (!got.ok() || got->ended) return;
    if (got->bytes == 0 && !stream.Wait(got->wait_for, stop_event_.get(), deadline).ok()) return;
  }
}

}  // namespace ramferry::tcp
