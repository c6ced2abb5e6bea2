#include <chrono>
#include <thread>

#include "gtest/gtest.h"
#include "tests/unit/fake_control_channel.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;

TEST(FakeControlPair, messages_arrive_in_order_and_before_the_end_of_the_connection) {
  FakeControlPair pair;
  ASSERT_TRUE(pair.source().Send(Hello{.migration_id = "a"}).ok());
  ASSERT_TRUE(pair.source().Send(Abort{"changed my mind"}).ok());
  pair.source().Close();
  auto first = pair.destination().Receive(In(0s));
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(std::get<Hello>(*first).migration_id, "a");
  auto second = pair.destination().Receive(In(0s));
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(std::get<Abort>(*second).reason, "changed my mind");
  EXPECT_EQ(pair.destination().Receive(In(10s)).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(pair.destination().Send(Paused{}).code(), absl::StatusCode::kUnavailable);
}

TEST(FakeControlPair, cut_at_the_nth_message_delivers_or_loses_it) {
  for (const bool delivered : {true, false}) {
    FakeControlPair pair;
    pair.At(FakeControlPair::kToDestination, 2,
            delivered ? FakeFault::kDeliverAndCut : FakeFault::kLoseAndCut);
    EXPECT_TRUE(pair.source().Send(Paused{}).ok());
    EXPECT_TRUE(pair.source().Send(HandOver{}).ok());
    EXPECT_FALSE(pair.source().Send(Paused{}).ok());
    EXPECT_TRUE(pair.destination().Receive(In(0s)).ok());
    EXPECT_EQ(pair.destination().Receive(In(0s)).ok(), delivered);
    EXPECT_EQ(pair.Sent(FakeControlPair::kToDestination),
              (std::vector<std::string>{"Paused", "HandOver"}));
  }
}

TEST(FakeControlPair, swallowed_messages_leave_the_connection_up) {
  FakeControlPair pair;
  pair.AtNext(FakeControlPair::kToSource, "Holding", FakeFault::kSwallow);
  EXPECT_TRUE(pair.destination().Send(Holding{}).ok());
  EXPECT_TRUE(pair.destination().Send(Activated{}).ok());
  auto next = pair.source().Receive(In(0s));
  ASSERT_TRUE(next.ok());
  EXPECT_STREQ(NameOf(*next), "Activated");

  pair.At(FakeControlPair::kToDestination, 1, FakeFault::kSwallowFromHere);
  EXPECT_TRUE(pair.source().Send(Paused{}).ok());
  EXPECT_TRUE(pair.source().Send(HandOver{}).ok());
  EXPECT_EQ(pair.destination().Receive(In(1ms)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(FakeControlPair, delayed_messages_wait_and_close_wakes_a_receiver) {
  FakeControlPair pair;
  pair.Delay(FakeControlPair::kToDestination, 1h);
  EXPECT_TRUE(pair.source().Send(Paused{}).ok());
  EXPECT_EQ(pair.destination().Receive(In(1ms)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  std::thread receiver([&] {
    EXPECT_EQ(pair.destination().Receive(In(1h)).status().code(), absl::StatusCode::kUnavailable);
  });
  pair.destination().Close();
  receiver.join();
}

}  // namespace
}  // namespace ramferry
