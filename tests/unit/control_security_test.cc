// Who may talk to whom: certificates that must not work, and what is said about them.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/control_relay.h"
#include "tests/unit/control_site.h"
#include "transport/control/door.h"
#include "transport/control/revocation.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

constexpr char kId[] = "01234567-89ab-cdef-0123-456789abcdef";

class ControlSecurity : public ::testing::Test {
 protected:
  void SetUp() override {
    service_.serve = [this](ControlChannel&) { ++served_; };
    service_.settle = [this](const std::string&, const std::string&) {
      ++served_;
      return Verdict::kReleased;
    };
    service_.confirm = [this](const std::string&, const std::string&) {
      ++served_;
      return absl::OkStatus();
    };
  }
  void Start(const Identity& identity, PeerPolicy policy = {}) {
    server_ = StartServer(
        {.address = "127.0.0.1", .identity = identity, .policy = std::move(policy)}, service_);
    ASSERT_NE(server_, nullptr);
  }
  // The error that every call of this client gets; the service must never have been reached.
  absl::Status Refusal(const Identity& identity, const std::string& host = "localhost") {
    const ControlClientOptions options = {
        .host = host, .port = server_->port(), .identity = identity};
    const absl::Status status = ConnectControl(options).status();
    EXPECT_EQ(AskVerdict(options, kId).status(), status);
    EXPECT_EQ(ConfirmVerdict(options, kId), status);
    EXPECT_EQ(served_, 0);
    return status;
  }

  Site site_;
  Site other_site_;
  LambdaService service_;
  std::atomic<int> served_ = 0;
  std::unique_ptr<ControlServer> server_;
};

TEST_F(ControlSecurity, a_destination_of_another_authority_is_refused) {
  Start(other_site_.Destination());
  const absl::Status status = Refusal(site_.Host("alpha.example"));
  EXPECT_EQ(status.code(), Code::kUnauthenticated);
  EXPECT_THAT(std::string(status.message()), HasSubstr("not made by this host's authority"));
}

TEST_F(ControlSecurity, a_source_of_another_authority_is_refused_and_told_so) {
  Start(site_.Destination());
  Identity stranger = other_site_.Host("alpha.example");
  stranger.ca_pem = site_.Host("x").ca_pem;  // it trusts the destination, which must not trust it
  const absl::Status status = Refusal(stranger);
  EXPECT_EQ(status.code(), Code::kPermissionDenied) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("refused this host's certificate: it must be made by the authority"));
}

TEST_F(ControlSecurity, a_destination_by_another_name_is_refused) {
  Start(site_.Host("gamma.example"));
  for (const char* host : {"localhost", "127.0.0.1"}) {
    const absl::Status status = Refusal(site_.Host("alpha.example"), host);
    EXPECT_EQ(status.code(), Code::kUnauthenticated);
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string("not for the name ") + host));
  }
}

TEST_F(ControlSecurity, the_name_to_prove_can_be_given_for_tests) {
  Start(site_.Host("gamma.example"));
  auto channel = ConnectControl({.host = "127.0.0.1",
                                 .port = server_->port(),
                                 .identity = site_.Host("alpha.example"),
                                 .expected_name = "gamma.example"});
  EXPECT_TRUE(channel.ok()) << channel.status();
}

TEST_F(ControlSecurity, an_expired_destination_is_refused) {
  Start(site_.Host("beta.example", {}, -1));
  const absl::Status status = Refusal(site_.Host("alpha.example"));
  EXPECT_EQ(status.code(), Code::kUnauthenticated);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has expired"));
}

TEST_F(ControlSecurity, an_expired_source_is_refused_and_told_so) {
  Start(site_.Destination());
  const absl::Status status = Refusal(site_.Host("alpha.example", {}, -1));
  EXPECT_EQ(status.code(), Code::kPermissionDenied) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("has expired"));
}

TEST_F(ControlSecurity, only_hosts_on_the_list_may_come_and_the_others_are_named) {
  Start(site_.Destination(), {.allowed = {"alpha.example", "delta.example"}});
  for (const char* host : {"gamma.example", "alpha.example.evil.example", "ALPHA"}) {
    const absl::Status status = Refusal(site_.Host(host));
    EXPECT_EQ(status.code(), Code::kPermissionDenied);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(std::string("the host ") + host + " is not on the list"),
                      HasSubstr("allow-list")));
  }
  // Any of its names will do.
  for (const Identity& good :
       {site_.Host("alpha.example"), site_.Host("epsilon.example", {"delta.example"})}) {
    auto channel = ConnectControl({.host = "localhost", .port = server_->port(), .identity = good});
    EXPECT_TRUE(channel.ok()) << channel.status();
  }
}

TEST_F(ControlSecurity, guests_go_only_to_hosts_on_the_sources_list) {
  Start(site_.Destination());
  ControlClientOptions options = {
      .host = "localhost", .port = server_->port(), .identity = site_.Host("alpha.example")};
  options.policy.allowed = {"gamma.example"};
  const absl::Status status = ConnectControl(options).status();
  EXPECT_EQ(status.code(), Code::kPermissionDenied) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("the host beta.example is not on the list of those that guests may be"));
  EXPECT_EQ(AskVerdict(options, kId).status().code(), Code::kPermissionDenied);
  options.policy.allowed = {"gamma.example", "beta.example"};
  EXPECT_TRUE(ConnectControl(options).ok());
}

TEST_F(ControlSecurity, a_new_list_counts_from_the_next_connection) {
  Start(site_.Destination(), {.allowed = {"gamma.example"}});
  const ControlClientOptions options = {
      .host = "localhost", .port = server_->port(), .identity = site_.Host("alpha.example")};
  EXPECT_EQ(ConnectControl(options).status().code(), Code::kPermissionDenied);
  server_->SetPolicy({.allowed = {"alpha.example"}});
  EXPECT_TRUE(ConnectControl(options).ok());
  server_->SetPolicy({.allowed = {"gamma.example"}});
  EXPECT_EQ(ConnectControl(options).status().code(), Code::kPermissionDenied);
}

// And the list counts from the moment that it is there.
TEST_F(ControlSecurity, a_revoked_source_is_refused_and_told_so) {
  const std::string list = site_.Path("crl.pem");
  const Identity alpha = site_.Host("alpha.example");
  const Identity gamma = site_.Host("gamma.example");
  ASSERT_TRUE(RevokeCertificate(site_.Path(""), "gamma.example").ok());
  Start(site_.Destination(), {.revocation_list = list});
  const auto come = [this](const Identity& identity) {
    return ConnectControl({.host = "localhost", .port = server_->port(), .identity = identity})
        .status();
  };
  EXPECT_TRUE(come(alpha).ok()) << come(alpha);
  const absl::Status status = come(gamma);
  EXPECT_EQ(status.code(), Code::kPermissionDenied) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("host gamma.example: its certificate is revoked"));
  ASSERT_TRUE(RevokeCertificate(site_.Path(""), "alpha.example").ok());
  EXPECT_EQ(come(alpha).code(), Code::kPermissionDenied);
  EXPECT_EQ(come(gamma).code(), Code::kPermissionDenied);
  EXPECT_TRUE(come(site_.Host("alpha.example")).ok());  // with a new certificate
}

TEST_F(ControlSecurity, a_revoked_destination_gets_no_guest_and_its_verdict_does_not_count) {
  Start(site_.Destination());
  ASSERT_TRUE(RevokeCertificate(site_.Path(""), "beta.example").ok());
  const ControlClientOptions options = {.host = "localhost",
                                        .port = server_->port(),
                                        .identity = site_.Host("alpha.example"),
                                        .policy = {.revocation_list = site_.Path("crl.pem")}};
  EXPECT_EQ(ConnectControl(options).status().code(), Code::kPermissionDenied);
  const auto verdict = AskVerdict(options, kId);
  EXPECT_EQ(verdict.status().code(), Code::kPermissionDenied);
  EXPECT_THAT(std::string(verdict.status().message()),
              HasSubstr("host beta.example: its certificate is revoked"));
}

TEST_F(ControlSecurity, a_list_that_is_missing_broken_or_anothers_lets_nobody_in) {
  const Identity alpha = site_.Host("alpha.example");
  (void)other_site_.Host("alpha.example");
  ASSERT_TRUE(RevokeCertificate(other_site_.Path(""), "alpha.example").ok());
  std::ofstream(site_.Path("broken.pem")) << "no list\n";
  for (const std::string& list :
       {site_.Path("missing.pem"), site_.Path("broken.pem"), other_site_.Path("crl.pem")}) {
    const absl::Status status = CheckNotRevoked(alpha.certificate_pem, alpha.ca_pem, list);
    EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(list));
  }
  EXPECT_TRUE(CheckNotRevoked(alpha.certificate_pem, alpha.ca_pem, "").ok());
}

// This process may open only so many descriptors more while it lives.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t more) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const UniqueFd next(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    rlimit few = before_;
    few.rlim_cur = std::min(before_.rlim_cur, static_cast<rlim_t>(next.get()) + more);
    ::setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

// A connection from 127.0.0.2 that says nothing.
UniqueFd SilentStranger(uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fd;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
  ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) fd.Reset();
  return fd;
}

TEST_F(ControlSecurity, strangers_neither_use_up_what_may_be_open_nor_shut_others_out) {
  service_.serve = [](ControlChannel& channel) {
    while (true) {
      auto message = channel.Receive(In(1h));
      if (!message.ok() || !channel.Send(*message).ok()) return;
    }
  };
  Start(site_.Destination());
  const ControlClientOptions options = {
      .host = "127.0.0.1", .port = server_->port(), .identity = site_.Host("alpha.example")};
  auto proven = ConnectControl(options);
  ASSERT_TRUE(proven.ok()) << proven.status();
  std::vector<UniqueFd> strangers;
  {
    // Room for them, and for those of them that may be held at a time.
    constexpr size_t kStrangers = 400;
    const FewDescriptors few(kStrangers + 300);
    for (size_t i = 0; i < kStrangers; ++i) {
      UniqueFd stranger = SilentStranger(server_->port());
      if (!stranger.valid()) break;
      strangers.push_back(std::move(stranger));
    }
  }
  auto another = ConnectControl(options);
  EXPECT_TRUE(another.ok()) << another.status();
  ASSERT_TRUE((*proven)->Send(Paused{}).ok());
  EXPECT_TRUE((*proven)->Receive(In(60s)).ok());
}

TEST_F(ControlSecurity, one_host_has_only_so_many_connections) {
  service_.serve = [](ControlChannel& channel) { (void)channel.Receive(In(1h)); };
  server_ = StartServer({.address = "127.0.0.1",
                         .identity = site_.Destination(),
                         .max_migrations = 2 * Door::kMostOfOneHost},
                        service_);
  ASSERT_NE(server_, nullptr);
  ControlClientOptions options = {
      .host = "localhost", .port = server_->port(), .identity = site_.Host("alpha.example")};
  std::vector<std::unique_ptr<ControlChannel>> channels;
  for (size_t i = 0; i < Door::kMostOfOneHost; ++i) {
    auto channel = ConnectControl(options);
    ASSERT_TRUE(channel.ok()) << channel.status();
    channels.push_back(*std::move(channel));
  }
  const absl::Status refused = ConnectControl(options).status();
  EXPECT_EQ(refused.code(), Code::kResourceExhausted) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("one host may have no more"));
  ControlClientOptions gamma = options;
  gamma.identity = site_.Host("gamma.example");
  EXPECT_TRUE(ConnectControl(gamma).ok());
  channels.pop_back();
  absl::Status again;
  for (const Deadline deadline = In(60s); Clock::now() < deadline;) {
    again = ConnectControl(options).status();
    if (again.ok()) break;
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_TRUE(again.ok()) << again;
}

TEST_F(ControlSecurity, a_plaintext_client_never_reaches_the_service) {
  Start(site_.Destination());
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(server_->port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  const std::string preface =
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string("\0\0\0\4\0\0\0\0\0", 9);
  ASSERT_GT(::send(fd.get(), preface.data(), preface.size(), MSG_NOSIGNAL), 0);
  char answer[4096];
  ssize_t got = 0;
  std::string all;
  while ((got = ::recv(fd.get(), answer, sizeof answer, 0)) > 0) all.append(answer, size_t(got));
  // It hangs up, after at most a TLS alert (record type 21).
  EXPECT_TRUE(all.empty() || all[0] == 21) << all.size();
  EXPECT_EQ(served_, 0);
}

TEST_F(ControlSecurity, a_plaintext_destination_is_refused) {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  std::atomic<bool> stop = false;
  std::thread plain([&] {
    while (!stop) {
      pollfd waiting = {.fd = listener.get(), .events = POLLIN};
      if (::poll(&waiting, 1, 10) <= 0) continue;
      const UniqueFd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      char hello[4096];
      (void)!::recv(peer.get(), hello, sizeof hello, 0);
      (void)!::send(peer.get(), "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL);
    }
  });
  const absl::Status status = ConnectControl({.host = "localhost",
                                              .port = ntohs(address.sin_port),
                                              .identity = site_.Host("alpha.example")})
                                  .status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("does not speak TLS"));
  stop = true;
  plain.join();
}

TEST_F(ControlSecurity, a_destination_that_accepts_and_says_nothing_is_given_up) {
  Start(site_.Destination());
  Relay relay(server_->port());
  relay.FallSilent();
  const absl::Status status = ConnectControl({.host = "localhost",
                                              .port = relay.port(),
                                              .identity = site_.Host("alpha.example"),
                                              .accept_timeout = 200ms})
                                  .status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("accepts connections but does not answer"));
}

// A host that was reached, but is busy: its time to answer is not that for reaching it.
TEST_F(ControlSecurity, a_destination_that_is_slow_to_accept_is_waited_for) {
  Start(site_.Destination());
  Relay relay(server_->port());
  relay.FallSilent();
  std::thread later([&relay] {
    std::this_thread::sleep_for(1500ms);
    relay.SpeakAgain();
  });
  const absl::Status status = ConnectControl({.host = "localhost",
                                              .port = relay.port(),
                                              .identity = site_.Host("alpha.example"),
                                              .connect_timeout = 1000ms})
                                  .status();
  later.join();
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace ramferry
