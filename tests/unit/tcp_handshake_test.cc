// Who may open a page channel, and who may not.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "base/cancellation.h"
#include "tests/unit/tcp_test_certificates.h"
#include "tests/unit/tcp_test_guest.h"
#include "transport/tcp/channel_desk.h"
#include "transport/tcp/handshake.h"
#include "transport/tcp/socket.h"
#include "transport/tcp/tcp_connector.h"
#include "transport/tcp/tcp_listener.h"
#include "transport/tcp/tls.h"
#include "transport/tcp/token_registry.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class TcpHandshake : public ::testing::TestWithParam<bool> {
 protected:
  TcpHandshake() : options_(GetParam() ? TestCertificates::Shared().Options("one") : TcpOptions{}) {
    Listen();
  }

  void Listen() {
    receiver_.reset();
    listener_ = *TcpListener::Create("127.0.0.1", 0, options_);
    regions_ = {memory_.region()};
    receiver_ = *listener_->Expect(regions_, 2);
  }

  static absl::Status Connect(const ChannelOffer& offer, const TcpOptions& options) {
    auto connector = TcpConnector::Create(options);
    if (!connector.ok()) return connector.status();
    auto channels = (*connector)->Connect(offer, {}, In(30s));
    if (!channels.ok()) return channels.status();
    for (auto& channel : *channels) {
      if (absl::Status status = channel->Flush(In(30s)); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // A bare TCP connection to the listener.
  UniqueFd Knock() const { return *tcp::ConnectTo("127.0.0.1", listener_->port(), -1, In(30s)); }

  // Waits until the other end has closed; what it sends before is thrown away.
  static void WaitForEnd(const UniqueFd& socket) {
    char bytes[256];
    while (true) {
      pollfd waiting{.fd = socket.get(), .events = POLLIN};
      ASSERT_GT(::poll(&waiting, 1, 30'000), 0);
      if (::recv(socket.get(), bytes, sizeof bytes, 0) <= 0) return;
    }
  }

  TcpOptions options_;
  TestMemory memory_{TestMemory::Kind::kFile, 16};
  std::vector<MappedRegion> regions_;
  std::unique_ptr<TcpListener> listener_;
  std::unique_ptr<ChannelReceiver> receiver_;
};

INSTANTIATE_TEST_SUITE_P(Streams, TcpHandshake, ::testing::Bool(),
                         [](const auto& stream) { return stream.param ? "encrypted" : "plain"; });

// The kernel has taken the connection, nobody answers on it.
TEST_P(TcpHandshake, a_source_that_is_cancelled_while_it_connects_does_not_wait_for_the_deadline) {
  const UniqueFd deaf = *tcp::ListenAt("127.0.0.1", 0);
  Cancellation cancel;
  TcpOptions options = options_;
  options.cancel_fd = cancel.fd();
  const auto connector = *TcpConnector::Create(options);
  ChannelOffer offer = receiver_->offer();
  offer.address = "127.0.0.1";
  offer.port = *tcp::PortOf(deaf);
  std::thread canceller([&cancel, &deaf] {
    pollfd waiting{.fd = deaf.get(), .events = POLLIN};
    EXPECT_EQ(::poll(&waiting, 1, 30'000), 1);
    cancel.Request("interrupted");
  });
  EXPECT_TRUE(absl::IsCancelled(connector->Connect(offer, {}, Deadline::max()).status()));
  canceller.join();
}

TEST_P(TcpHandshake, every_token_is_new) {
  std::set<std::string> tokens;
  for (int i = 0; i < 50; ++i) {
    auto receiver = *listener_->Expect(regions_, 2);
    for (const std::string& token : receiver->offer().tokens) {
      EXPECT_EQ(token.size(), 32U);
      EXPECT_TRUE(tokens.insert(token).second);
    }
  }
}

TEST_P(TcpHandshake, wrong_token_is_refused) {
  ChannelOffer offer = receiver_->offer();
  offer.tokens = {tcp::NewToken()};
  const absl::Status status = Connect(offer, options_);
  EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("does not know this channel's token"));
  EXPECT_TRUE(Connect(receiver_->offer(), options_).ok()) << "the right ones still count";
}

TEST_P(TcpHandshake, token_is_good_for_one_channel) {
  ASSERT_TRUE(Connect(receiver_->offer(), options_).ok());
  EXPECT_TRUE(absl::IsPermissionDenied(Connect(receiver_->offer(), options_)));
}

TEST_P(TcpHandshake, token_of_a_stopped_receiver_is_refused) {
  receiver_->Stop();
  EXPECT_TRUE(absl::IsPermissionDenied(Connect(receiver_->offer(), options_)));
}

TEST_P(TcpHandshake, pages_land_where_the_token_leads) {
  TestMemory source(TestMemory::Kind::kFile, 16);
  source.FillRandomly(1);
  TestMemory other(TestMemory::Kind::kFile, 16);
  const std::vector<MappedRegion> others{other.region()};
  auto second = *listener_->Expect(others, 1);
  auto channels = *(*TcpConnector::Create(options_))->Connect(second->offer(), {}, In(30s));
  const PageWrite write{0, 0, source.data(), source.bytes()};
  ASSERT_TRUE(channels[0]->Write({&write, 1}).ok());
  ASSERT_TRUE(channels[0]->Flush(In(30s)).ok());
  EXPECT_EQ(std::memcmp(other.data(), source.data(), source.bytes()), 0);
  EXPECT_EQ(memory_.file_blocks(), 0U);
}

TEST_P(TcpHandshake, silent_connection_is_closed_in_time) {
  options_.handshake_timeout = 50ms;
  Listen();
  WaitForEnd(Knock());
}

TEST_P(TcpHandshake, nonsense_is_closed) {
  const UniqueFd socket = Knock();
  const std::string nonsense(4096, 'x');
  ASSERT_EQ(::send(socket.get(), nonsense.data(), nonsense.size(), MSG_NOSIGNAL), 4096);
  WaitForEnd(socket);
  EXPECT_TRUE(Connect(receiver_->offer(), options_).ok());
}

TEST_P(TcpHandshake, a_crowd_of_silent_connections_does_not_keep_the_source_out) {
  options_.handshake_timeout = 600s;
  Listen();
  std::vector<UniqueFd> crowd;
  for (size_t i = 0; i < tcp::ChannelDesk::kMostUnproven + 8; ++i) crowd.push_back(Knock());
  WaitForEnd(crowd.front());  // the oldest had to go
  EXPECT_TRUE(Connect(receiver_->offer(), options_).ok());
}

TEST_P(TcpHandshake, both_ends_must_agree_on_encryption) {
  ChannelOffer offer = receiver_->offer();
  const TcpOptions other = GetParam() ? TcpOptions{} : TestCertificates::Shared().Options("one");
  EXPECT_TRUE(absl::IsFailedPrecondition(Connect(offer, other)));
}

TEST(TcpTls, host_of_another_ca_is_refused_by_the_destination) {
  const TestCertificates& certificates = TestCertificates::Shared();
  TestMemory memory(TestMemory::Kind::kFile, 4);
  const std::vector<MappedRegion> regions{memory.region()};
  auto listener = *TcpListener::Create("127.0.0.1", 0, certificates.Options("one"));
  auto receiver = *listener->Expect(regions, 1);
  // It knows the token, trusts the destination, and has a certificate of its own.
  auto stranger = *TcpConnector::Create(certificates.Options("stranger"));
  const auto channels = stranger->Connect(receiver->offer(), {}, In(30s));
  EXPECT_FALSE(channels.ok());
}

TEST(TcpTls, destination_of_another_ca_is_refused_by_the_source) {
  const TestCertificates& certificates = TestCertificates::Shared();
  TestMemory memory(TestMemory::Kind::kFile, 4);
  const std::vector<MappedRegion> regions{memory.region()};
  auto listener = *TcpListener::Create("127.0.0.1", 0, certificates.Options("stranger"));
  auto receiver = *listener->Expect(regions, 1);
  auto connector = *TcpConnector::Create(certificates.Options("two"));
  const auto channels = connector->Connect(receiver->offer(), {}, In(30s));
  EXPECT_TRUE(absl::IsUnauthenticated(channels.status())) << channels.status();
}

TEST(TcpTls, missing_files_are_named) {
  TcpOptions options = TestCertificates::Shared().Options("one");
  options.key_file = "/nowhere/host.key";
  const auto connector = TcpConnector::Create(options);
  EXPECT_TRUE(absl::IsFailedPrecondition(connector.status()));
  EXPECT_THAT(std::string(connector.status().message()), HasSubstr("/nowhere/host.key"));
}

// Two ends of a TLS session over a socket pair.
struct Session {
  std::unique_ptr<tcp::ByteStream> source;
  std::unique_ptr<tcp::ByteStream> destination;

  Session() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) != 0) std::abort();
    const TestCertificates& certificates = TestCertificates::Shared();
    std::thread other([&, fd = ends[1]] {
      destination = *(*tcp::TlsContext::Create(certificates.Options("one"),
                                               tcp::TlsContext::Side::kDestination))
                         ->Secure(tcp::PlainStream(UniqueFd(fd)), -1, In(30s));
    });
    source =
        *(*tcp::TlsContext::Create(certificates.Options("two"), tcp::TlsContext::Side::kSource))
             ->Secure(tcp::PlainStream(UniqueFd(ends[0])), -1, In(30s));
    other.join();
  }
};

class NullHolder final : public tcp::TokenHolder {
 public:
  void Deliver(std::unique_ptr<tcp::ByteStream>, const std::string&, size_t) override {}
};

TEST(TcpTls, proof_from_another_session_is_refused) {
  tcp::TokenRegistry registry;
  auto holder = std::make_shared<NullHolder>();
  const std::string token = registry.Issue(holder, 1)[0];
  const Session overheard;
  const Session own;
  const tcp::Key proof = tcp::Prover::For(*overheard.source)->SourceProof(token);
  EXPECT_FALSE(registry.Take(*tcp::Prover::For(*own.destination), proof).has_value());
  EXPECT_TRUE(registry.Take(*tcp::Prover::For(*overheard.destination), proof).has_value());
  EXPECT_FALSE(registry.Take(*tcp::Prover::For(*overheard.destination), proof).has_value());
}

TEST(TcpTls, source_gives_nothing_to_a_destination_that_does_not_know_the_token) {
  const Session session;
  std::thread impostor([&] {
    ASSERT_TRUE(tcp::ReadIntroduction(*session.destination, -1, In(30s)).ok());
    const tcp::Key guess =
        tcp::Prover::For(*session.destination)->DestinationProof(tcp::NewToken());
    ASSERT_TRUE(tcp::Answer(*session.destination, tcp::Reply::kAccepted, guess, -1, In(30s)).ok());
  });
  const absl::Status status = tcp::Introduce(*session.source, tcp::NewToken(), -1, In(30s));
  impostor.join();
  EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
}

}  // namespace
}  // namespace ramferry
