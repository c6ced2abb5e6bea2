// gRPC 1.51 takes an errno that something left behind after connect(2) for connect's own. This
// program puts itself between gRPC and epoll_ctl(2), which comes right after connect(2), and leaves
// one.
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>

#include "gtest/gtest.h"
#include "tests/unit/control_site.h"

namespace {

std::atomic<uint16_t> server_port = 0;
std::atomic<int> disturbances_left = 0;

// Whether `fd` is the client's end of a connection to the server.
bool LeadsToServer(int fd) {
  sockaddr_storage peer = {};
  socklen_t size = sizeof peer;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) return false;
  // The port is at the same place for both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&peer)->sin_port) == server_port;
}

}  // namespace

extern "C" int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  using Function = int (*)(int, int, int, epoll_event*);
  static const auto next = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, "epoll_ctl"));
  const int result = next(epoll, operation, fd, event);
  if (result == 0 && operation == EPOLL_CTL_ADD && LeadsToServer(fd) && disturbances_left-- > 0) {
    errno = ENOENT;
  }
  return result;
}

namespace ramferry {
namespace {

class ControlErrno : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(server_, nullptr);
    server_port = server_->port();
  }
  ControlClientOptions Options() {
    return {.host = "localhost", .port = server_->port(), .identity = site_.Host("alpha.example")};
  }

  Site site_;
  LambdaService service_;
  std::unique_ptr<ControlServer> server_ =
      StartServer({.address = "127.0.0.1", .identity = site_.Destination()}, service_);
};

TEST_F(ControlErrno, a_connection_is_not_given_up_for_a_foreign_errno) {
  disturbances_left = 1;
  const auto channel = ConnectControl(Options());
  EXPECT_TRUE(channel.ok()) << channel.status();
  EXPECT_LE(disturbances_left, 0) << "nothing was disturbed";
}

TEST_F(ControlErrno, a_question_is_not_given_up_for_a_foreign_errno) {
  disturbances_left = 1;
  const auto verdict = AskVerdict(Options(), "01234567-89ab-cdef-0123-456789abcdef");
  EXPECT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_LE(disturbances_left, 0) << "nothing was disturbed";
}

TEST_F(ControlErrno, it_is_not_tried_for_ever) {
  disturbances_left = 1000;
  EXPECT_EQ(ConnectControl(Options()).status().code(), absl::StatusCode::kUnavailable);
  disturbances_left = 0;
}

}  // namespace
}  // namespace ramferry
