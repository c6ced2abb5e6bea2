// Client and server of the control channel over loopback.
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/control_relay.h"
#include "tests/unit/control_samples.h"
#include "tests/unit/control_site.h"
#include "transport/control/codec.h"
#include "transport/control/control.pb.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

constexpr char kId[] = "01234567-89ab-cdef-0123-456789abcdef";
constexpr auto kLong = 60s;  // nothing is expected to take so long

std::string Wire(const ControlMessage& message) {
  v1::Frame frame;
  EXPECT_TRUE(EncodeFrame(message, frame).ok());
  return frame.SerializeAsString();
}

class ControlConnection : public ::testing::Test {
 protected:
  void Serve(std::function<void(ControlChannel&)> serve, size_t max_migrations = 8) {
    service_.serve = std::move(serve);
    server_ = StartServer(
        {.address = "127.0.0.1", .identity = site_.Destination(), .max_migrations = max_migrations},
        service_);
    ASSERT_NE(server_, nullptr);
  }
  ControlClientOptions Options() {
    return {.host = "localhost", .port = server_->port(), .identity = source_};
  }
  std::unique_ptr<ControlChannel> Connect() { return Connect(Options()); }
  static std::unique_ptr<ControlChannel> Connect(const ControlClientOptions& options) {
    auto channel = ConnectControl(options);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return channel.ok() ? *std::move(channel) : nullptr;
  }

  Site site_;
  Identity source_ = site_.Host("alpha.example");
  LambdaService service_;
  std::unique_ptr<ControlServer> server_;
};

void Echo(ControlChannel& channel) {
  while (true) {
    auto message = channel.Receive(In(kLong));
    if (!message.ok() || !channel.Send(*message).ok()) return;
  }
}

TEST_F(ControlConnection, every_message_goes_there_and_back_in_order) {
  Serve(Echo);
  const auto channel = Connect();
  ASSERT_NE(channel, nullptr);
  for (const ControlMessage& message : SampleMessages()) ASSERT_TRUE(channel->Send(message).ok());
  for (const ControlMessage& message : SampleMessages()) {
    auto back = channel->Receive(In(kLong));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(Wire(*back), Wire(message)) << NameOf(message);
  }
}

TEST_F(ControlConnection, both_sides_know_the_others_proven_name_and_address) {
  std::promise<std::pair<std::string, std::string>> seen;
  Serve([&](ControlChannel& channel) {
    seen.set_value({channel.peer_name(), channel.peer_address()});
  });
  const auto channel = Connect();
  ASSERT_NE(channel, nullptr);
  EXPECT_EQ(channel->peer_name(), "beta.example");
  EXPECT_EQ(channel->peer_address(), "127.0.0.1");
  const auto source = seen.get_future().get();
  EXPECT_EQ(source.first, "alpha.example");
  EXPECT_EQ(source.second, "127.0.0.1");
}

TEST_F(ControlConnection, hosts_are_reached_by_name_and_by_either_kind_of_address) {
  service_.serve = Echo;
  for (const char* address : {"127.0.0.1", "::1"}) {
    auto server =
        ControlServer::Start({.address = address, .identity = site_.Destination()}, service_);
    if (!server.ok() && std::string(address) == "::1") GTEST_SKIP() << "no IPv6 loopback here";
    ASSERT_TRUE(server.ok()) << server.status();
    for (const std::string& host : {std::string(address), std::string("localhost")}) {
      if (host == "localhost" && std::string(address) == "::1") continue;
      const auto channel = Connect({.host = host, .port = (*server)->port(), .identity = source_});
      ASSERT_NE(channel, nullptr) << host;
      EXPECT_EQ(channel->peer_address(), address);
    }
  }
}

TEST_F(ControlConnection, receive_honours_its_deadline_and_close_wakes_it) {
  Serve(Echo);
  const auto channel = Connect();
  ASSERT_NE(channel, nullptr);
  EXPECT_EQ(channel->Receive(In(1ms)).status().code(), Code::kDeadlineExceeded);
  std::thread receiver(
      [&] { EXPECT_EQ(channel->Receive(In(1h)).status().code(), Code::kUnavailable); });
  channel->Close();
  receiver.join();
  EXPECT_EQ(channel->Send(Paused{}).code(), Code::kUnavailable);
}

TEST_F(ControlConnection, what_was_sent_before_a_close_is_delivered) {
  std::promise<std::vector<std::string>> received;
  Serve([&](ControlChannel& channel) {
    std::vector<std::string> names;
    while (true) {
      auto message = channel.Receive(In(kLong));
      if (!message.ok()) break;
      names.emplace_back(NameOf(*message));
    }
    received.set_value(names);
  });
  {
    const auto channel = Connect();
    ASSERT_NE(channel, nullptr);
    const DeviceState chunk{std::vector<std::byte>(kMaxDeviceStateChunk)};
    for (int i = 0; i < 8; ++i) ASSERT_TRUE(channel->Send(chunk).ok());
    ASSERT_TRUE(channel->Send(HandOver{}).ok());
  }  // closed at once
  std::vector<std::string> expected(8, "DeviceState");
  expected.emplace_back("HandOver");
  EXPECT_EQ(received.get_future().get(), expected);
}

TEST_F(ControlConnection, answers_before_the_destination_hangs_up_are_received) {
  Serve([](ControlChannel& channel) {
    EXPECT_TRUE(channel.Receive(In(kLong)).ok());
    const DeviceState chunk{std::vector<std::byte>(kMaxDeviceStateChunk)};
    for (int i = 0; i < 8; ++i) EXPECT_TRUE(channel.Send(chunk).ok());
    EXPECT_TRUE(channel.Send(Refused{{"no room"}}).ok());
  });
  for (int i = 0; i < 20; ++i) {
    const auto channel = Connect();
    ASSERT_NE(channel, nullptr);
    ASSERT_TRUE(channel->Send(SampleHello()).ok());
    for (int j = 0; j < 8; ++j) ASSERT_TRUE(channel->Receive(In(kLong)).ok());
    // Frames on their way to a side that has hung up must not disturb what comes from there.
    (void)channel->Send(Paused{});
    auto refused = channel->Receive(In(kLong));
    ASSERT_TRUE(refused.ok()) << refused.status();
    EXPECT_EQ(std::get<Refused>(*refused).reasons.at(0), "no room");
    EXPECT_EQ(channel->Receive(In(kLong)).status().code(), Code::kUnavailable);
    EXPECT_EQ(channel->Send(Paused{}).code(), Code::kUnavailable);
  }
}

TEST_F(ControlConnection, a_slow_receiver_holds_the_sender_back) {
  std::promise<void> go;
  std::shared_future<void> gone = go.get_future().share();
  std::atomic<int> sent = 0;
  constexpr int kCount = 200;  // 50 MiB: more than all queues and socket buffers
  Serve([&](ControlChannel& channel) {
    gone.wait();
    for (int i = 0; i < kCount; ++i) ASSERT_TRUE(channel.Receive(In(kLong)).ok());
    EXPECT_TRUE(channel.Send(Holding{}).ok());
  });
  const auto channel = Connect();
  ASSERT_NE(channel, nullptr);
  std::thread sender([&] {
    const DeviceState chunk{std::vector<std::byte>(kMaxDeviceStateChunk)};
    for (; sent < kCount; ++sent) ASSERT_TRUE(channel->Send(chunk).ok());
  });
  int before = -1;  // until the sender makes no progress any more
  while (sent != before || before == 0) {
    before = sent;
    std::this_thread::sleep_for(300ms);
  }
  EXPECT_LT(before, kCount);
  go.set_value();
  sender.join();
  EXPECT_TRUE(channel->Receive(In(kLong)).ok());
}

TEST_F(ControlConnection, many_threads_may_send) {
  std::promise<uint64_t> sum;
  Serve([&](ControlChannel& channel) {
    uint64_t total = 0;
    for (int i = 0; i < 400; ++i) {
      auto message = channel.Receive(In(kLong));
      if (!message.ok()) break;
      total += std::get<RoundNote>(*message).round;
    }
    sum.set_value(total);
  });
  const auto channel = Connect();
  ASSERT_NE(channel, nullptr);
  std::vector<std::thread> senders;
  for (int t = 0; t < 4; ++t) {
    senders.emplace_back([&] {
      for (uint32_t i = 1; i <= 100; ++i) EXPECT_TRUE(channel->Send(RoundNote{.round = i}).ok());
    });
  }
  for (std::thread& sender : senders) sender.join();
  EXPECT_EQ(sum.get_future().get(), 4u * 5050u);
}

TEST_F(ControlConnection, many_migrations_at_once_do_not_mix) {
  Serve(Echo, 16);
  std::vector<std::thread> sources;
  for (uint32_t n = 1; n <= 12; ++n) {
    sources.emplace_back([this, n] {
      const auto channel = Connect();
      ASSERT_NE(channel, nullptr);
      for (int i = 0; i < 50; ++i) {
        ASSERT_TRUE(channel->Send(RoundNote{.round = n}).ok());
        auto back = channel->Receive(In(kLong));
        ASSERT_TRUE(back.ok()) << back.status();
        EXPECT_EQ(std::get<RoundNote>(*back).round, n);
      }
    });
  }
  for (std::thread& source : sources) source.join();
}

TEST_F(ControlConnection, one_migration_too_many_is_refused_with_the_reason) {
  Serve(Echo, 1);
  auto first = Connect();
  ASSERT_NE(first, nullptr);
  auto second = ConnectControl(Options());
  EXPECT_EQ(second.status().code(), Code::kResourceExhausted);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("1 migrations are under way"));
  first.reset();
  for (;;) {  // room again, as soon as the first one's thread is done
    second = ConnectControl(Options());
    if (second.ok()) break;
    ASSERT_EQ(second.status().code(), Code::kResourceExhausted) << second.status();
  }
}

TEST_F(ControlConnection, stop_ends_the_migrations_under_way) {
  std::promise<absl::Status> end;
  Serve([&](ControlChannel& channel) {
    EXPECT_TRUE(channel.Send(Paused{}).ok());
    end.set_value(channel.Receive(In(1h)).status());
  });
  const auto channel = Connect();
  ASSERT_NE(channel, nullptr);
  ASSERT_TRUE(channel->Receive(In(kLong)).ok());
  EXPECT_TRUE(server_->Stop(In(kLong)).ok());
  EXPECT_EQ(end.get_future().get().code(), Code::kUnavailable);
  EXPECT_EQ(channel->Receive(In(kLong)).status().code(), Code::kUnavailable);
  EXPECT_EQ(ConnectControl(Options()).status().code(), Code::kUnavailable);
}

TEST_F(ControlConnection, stop_says_when_a_migration_does_not_end) {
  std::promise<void> go;
  Serve([&, gone = go.get_future().share()](ControlChannel&) { gone.wait(); });
  const auto channel = Connect();
  ASSERT_NE(channel, nullptr);
  EXPECT_EQ(server_->Stop(In(50ms)).code(), Code::kDeadlineExceeded);
  go.set_value();
  EXPECT_TRUE(server_->Stop(In(kLong)).ok());
}

// Both sides of a connection through a relay that `fails` in the midst of it.
class ControlRelay : public ControlConnection {
 protected:
  void ExpectNoticed(const std::function<void(Relay&)>& fails) {
    std::promise<absl::Status> end;
    Serve([&](ControlChannel& channel) {
      EXPECT_TRUE(channel.Receive(In(kLong)).ok());
      EXPECT_TRUE(channel.Send(Paused{}).ok());
      end.set_value(channel.Receive(In(kLong)).status());
    });
    Relay relay(server_->port());
    ControlClientOptions options = Options();
    options.port = relay.port();
    const auto channel = Connect(options);
    ASSERT_NE(channel, nullptr);
    ASSERT_TRUE(channel->Send(SampleHello()).ok());
    ASSERT_TRUE(channel->Receive(In(kLong)).ok());
    fails(relay);
    EXPECT_EQ(channel->Receive(In(kLong)).status().code(), Code::kUnavailable);
    EXPECT_EQ(end.get_future().get().code(), Code::kUnavailable);
  }
};

TEST_F(ControlRelay, a_peer_that_falls_silent_is_noticed_on_both_sides) {
  // Without keepalives both would wait for the whole minute and say DeadlineExceeded.
  ExpectNoticed([](Relay& relay) { relay.FallSilent(); });
}

TEST_F(ControlRelay, a_connection_that_breaks_is_noticed_on_both_sides) {
  ExpectNoticed([](Relay& relay) { relay.Cut(); });
}

TEST_F(ControlConnection, verdicts_are_asked_for_and_confirmed_by_the_proven_peer) {
  std::mutex mutex;
  std::vector<std::string> asked;
  Verdict verdict = Verdict::kUnknown;
  absl::Status confirmation;
  service_.settle = [&](const std::string& id, const std::string& peer) {
    const std::lock_guard lock(mutex);
    asked.push_back("settle " + id + " " + peer);
    return verdict;
  };
  service_.confirm = [&](const std::string& id, const std::string& peer) {
    const std::lock_guard lock(mutex);
    asked.push_back("confirm " + id + " " + peer);
    return confirmation;
  };
  Serve(Echo);
  for (const Verdict expected :
       {Verdict::kUnknown, Verdict::kUndecided, Verdict::kOwned, Verdict::kReleased}) {
    {
      const std::lock_guard lock(mutex);
      verdict = expected;
    }
    auto answer = AskVerdict(Options(), kId);
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(*answer, expected);
  }
  EXPECT_TRUE(ConfirmVerdict(Options(), kId).ok());
  EXPECT_EQ(AskVerdict(Options(), "../x").status().code(), Code::kInvalidArgument);
  {
    const std::lock_guard lock(mutex);
    ASSERT_EQ(asked.size(), 5u);
    EXPECT_EQ(asked.front(), std::string("settle ") + kId + " alpha.example");
    EXPECT_EQ(asked.back(), std::string("confirm ") + kId + " alpha.example");
    confirmation = absl::ResourceExhaustedError("the disk is full");
  }
  EXPECT_THAT(std::string(ConfirmVerdict(Options(), kId).message()), HasSubstr("the disk is full"));
  const ControlClientOptions gone = Options();
  server_.reset();
  EXPECT_EQ(AskVerdict(gone, kId).status().code(), Code::kUnavailable);
}

TEST_F(ControlConnection, a_second_server_on_a_port_says_what_is_wrong) {
  Serve(Echo);
  auto second = ControlServer::Start(
      {.address = "127.0.0.1", .port = server_->port(), .identity = source_}, service_);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another program uses this port"));
  auto elsewhere = ControlServer::Start({.address = "192.0.2.1", .identity = source_}, service_);
  EXPECT_THAT(std::string(elsewhere.status().message()), HasSubstr("does not have that address"));
}

TEST_F(ControlConnection, failures_to_connect_say_why) {
  Serve(Echo);
  ControlClientOptions options = Options();
  server_.reset();
  EXPECT_THAT(std::string(ConnectControl(options).status().message()),
              HasSubstr("nothing listens on localhost"));
  options.host = "no-such-host.invalid";
  EXPECT_THAT(std::string(ConnectControl(options).status().message()),
              HasSubstr("cannot find the host no-such-host.invalid"));
  options.host = "a/b";
  EXPECT_EQ(ConnectControl(options).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace ramferry
