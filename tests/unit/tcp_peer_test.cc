// What a source does when the other end of its page channel misbehaves or goes away.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "tests/unit/tcp_test_guest.h"
#include "transport/tcp/frame.h"
#include "transport/tcp/handshake.h"
#include "transport/tcp/socket.h"
#include "transport/tcp/tcp_connector.h"
#include "transport/tcp/tcp_listener.h"
#include "transport/tcp/tcp_page_channel.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// A channel whose destination is the test: the other end of a socket pair.
class TcpPeer : public ::testing::Test {
 protected:
  TcpPeer() { source_.FillRandomly(1); }

  void Open(std::chrono::milliseconds stall_timeout) {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    peer_.Reset(ends[1]);
    channel_ = std::make_unique<tcp::TcpPageChannel>(tcp::PlainStream(UniqueFd(ends[0])),
                                                     std::span<const MappedRegion>(),
                                                     "page channel 1", stall_timeout);
  }
  absl::Status WriteUntilError() {
    const PageWrite write{0, 0, source_.data(), source_.bytes()};
    absl::Status status;
    while (status.ok()) status = channel_->Write({&write, 1});
    return status;
  }
  void Answer(const tcp::FrameHeader& header, std::string_view text = {}) const {
    const tcp::HeaderBytes bytes = tcp::Encoded(header);
    ASSERT_EQ(::send(peer_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), 24);
    ::send(peer_.get(), text.data(), text.size(), MSG_NOSIGNAL);
  }

  TestMemory source_{TestMemory::Kind::kAnonymous, 64};
  UniqueFd peer_;
  std::unique_ptr<tcp::TcpPageChannel> channel_;
};

TEST_F(TcpPeer, one_that_takes_nothing_is_an_error) {
  Open(100ms);
  const absl::Status status = WriteUntilError();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("took nothing for 100 ms"));
  EXPECT_EQ(channel_->Flush(In(1s)), status) << "and stays one";
}

TEST_F(TcpPeer, one_that_never_confirms_is_an_error_at_the_deadline) {
  Open(600s);
  EXPECT_TRUE(absl::IsDeadlineExceeded(channel_->Flush(In(20ms))));
}

TEST_F(TcpPeer, abort_wakes_a_write_that_waits) {
  Open(600s);
  std::thread worker([&] { EXPECT_TRUE(absl::IsCancelled(WriteUntilError())); });
  while (channel_->stats().wire.value() == 0) std::this_thread::yield();
  channel_->Abort();
  worker.join();
}

TEST_F(TcpPeer, abort_wakes_a_flush_that_waits) {
  Open(600s);
  std::thread worker([&] { EXPECT_TRUE(absl::IsCancelled(channel_->Flush(In(600s)))); });
  while (channel_->stats().wire.value() == 0) std::this_thread::yield();
  channel_->Abort();
  worker.join();
}

TEST_F(TcpPeer, reason_given_before_it_closed_is_reported) {
  Open(600s);
  const std::string reason = "no \x1b[31mroom";
  Answer({.type = tcp::FrameType::kError,
          .code = static_cast<uint32_t>(tcp::ErrorCode::kNoMemory),
          .length = reason.size()},
         reason);
  peer_.Reset();
  const absl::Status status = WriteUntilError();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no ?[31mroom"));
}

TEST_F(TcpPeer, one_that_closes_without_a_word_is_an_error) {
  Open(600s);
  peer_.Reset();
  EXPECT_TRUE(absl::IsUnavailable(WriteUntilError()));
}

TEST_F(TcpPeer, confirmation_that_nobody_asked_for_is_an_error) {
  for (const uint64_t sequence : {0, 2, 3}) {
    Open(600s);
    Answer({.type = tcp::FrameType::kFlushed, .offset = sequence});
    EXPECT_TRUE(absl::IsInvalidArgument(channel_->Flush(In(30s)))) << sequence;
  }
}

TEST_F(TcpPeer, answer_longer_than_any_may_be_is_no_trouble) {
  Open(600s);
  Answer({.type = tcp::FrameType::kError, .length = ~uint64_t{0}}, std::string(4096, 'x'));
  EXPECT_TRUE(absl::IsInternal(channel_->Flush(In(30s))));
}

// The destination notices a source whose host lost its memory of the connection: no FIN comes, the
// kernel's probes find out.
TEST(TcpReceiver, half_open_source_is_noticed) {
  TestMemory memory(TestMemory::Kind::kFile, 4);
  const std::vector<MappedRegion> regions{memory.region()};
  TcpOptions options;
  options.stall_timeout = 1s;
  auto listener = *TcpListener::Create("127.0.0.1", 0, options);
  auto receiver = *listener->Expect(regions, 1);
  UniqueFd socket = *tcp::ConnectTo("127.0.0.1", listener->port(), -1, In(30s));
  const int fd = socket.get();
  auto stream = tcp::PlainStream(std::move(socket));
  ASSERT_TRUE(tcp::Introduce(*stream, receiver->offer().tokens[0], -1, In(30s)).ok());
  const int on = 1;
  if (::setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on) != 0) {
    GTEST_SKIP() << "forgetting a connection silently (TCP_REPAIR) is not permitted here: "
                 << std::strerror(errno);
  }
  stream.reset();  // closed in repair mode: nothing is sent
  const Deadline deadline = In(60s);
  while (receiver->status().ok() && Clock::now() < deadline) std::this_thread::sleep_for(10ms);
  EXPECT_TRUE(absl::IsUnavailable(receiver->status())) << receiver->status();
}

}  // namespace
}  // namespace ramferry
