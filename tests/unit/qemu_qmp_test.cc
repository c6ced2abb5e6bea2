// What comes from a QMP socket is split, checked and told apart; what is wrong has a clear end.
#include <chrono>

#include "fake_qmp_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/qemu/qmp_client.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::HasSubstr;

constexpr auto kPatience = 20s;  // for what must happen
constexpr auto kMoment = 20ms;   // for what must not

TEST(QmpParser, lines_cut_anywhere_are_the_same_messages) {
  const std::string text =
      "{\"return\": {}}\r\n\n  \r\n{\"event\": \"STOP\"}\n{\"return\": [1, \"\\n\"]}\n";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    QmpParser parser;
    ASSERT_TRUE(parser.Feed(text.substr(0, cut)).ok());
    ASSERT_TRUE(parser.Feed(text.substr(cut)).ok());
    EXPECT_EQ(parser.Next(), json::parse(R"({"return": {}})"));
    EXPECT_EQ(parser.Next(), json::parse(R"({"event": "STOP"})"));
    EXPECT_EQ(parser.Next(), json::parse(R"({"return": [1, "\n"]})"));
    EXPECT_EQ(parser.Next(), std::nullopt);
  }
}

TEST(QmpParser, half_a_line_is_no_message_yet) {
  QmpParser parser;
  ASSERT_TRUE(parser.Feed(R"({"return": 1})").ok());
  EXPECT_EQ(parser.Next(), std::nullopt);
  ASSERT_TRUE(parser.Feed("\n").ok());
  EXPECT_NE(parser.Next(), std::nullopt);
}

TEST(QmpParser, garbage_is_an_error) {
  for (const char* garbage : {"hello\n", "[1]\n", "7\n", "{\"a\": }\n", "\"\xff\"\n", "{} {}\n"}) {
    QmpParser parser;
    EXPECT_TRUE(absl::IsInvalidArgument(parser.Feed(garbage))) << garbage;
  }
}

TEST(QmpParser, line_without_end_is_an_error_before_it_fills_the_memory) {
  QmpParser parser;
  const std::string piece(1 << 20, ' ');
  absl::Status status;
  for (int i = 0; i < 8 && status.ok(); ++i) status = parser.Feed(piece);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(status.message(), HasSubstr("without end"));
}

class Qmp : public testing::Test {
 protected:
  std::unique_ptr<QmpClient> Connected() {
    auto client = QmpClient::Connect(qemu_.path(), In(kPatience));
    EXPECT_TRUE(client.ok()) << client.status();
    return client.ok() ? *std::move(client) : nullptr;
  }
  FakeQmpServer qemu_;
};

TEST_F(Qmp, tells_who_serves_the_socket_and_what_the_command_returned) {
  qemu_.Handle("echo", [](const json& arguments) {
    return json{{"return", arguments["value"]}}.dump() + "\n";
  });
  const auto qmp = Connected();
  EXPECT_EQ(qmp->peer_pid(), ::getpid());
  const auto answer = qmp->Execute("echo", {{"value", {1, 2}}});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, json({1, 2}));
}

TEST(QmpConnect, silence_means_that_another_client_has_the_monitor) {
  FakeQmpServer qemu("");
  const auto client = QmpClient::Connect(qemu.path(), In(kMoment));
  EXPECT_TRUE(absl::IsDeadlineExceeded(client.status()));
  EXPECT_THAT(client.status().message(), HasSubstr("another client"));
  EXPECT_THAT(client.status().message(), HasSubstr("-qmp"));
}

// QEMU's listener takes no more than two who wait, and forgets none that has gone.
TEST(QmpConnect, monitor_taken_for_long_does_not_hold_us_up_for_ever) {
  TestDirectory directory;
  const std::string path = directory.File("qmp");
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  for (int i = 0; i < 4; ++i) {
    const auto client = QmpClient::Connect(path, In(kMoment));
    EXPECT_TRUE(absl::IsDeadlineExceeded(client.status())) << client.status();
    EXPECT_THAT(client.status().message(), HasSubstr("another client"));
  }
}

TEST(QmpConnect, something_else_behind_the_socket_is_named) {
  for (const char* greeting : {"220 mail ready", "[]", "{\"hello\": 1}", "{\"return\": {}}"}) {
    FakeQmpServer other(greeting);
    const auto client = QmpClient::Connect(other.path(), In(kPatience));
    EXPECT_TRUE(absl::IsInvalidArgument(client.status())) << greeting << ": " << client.status();
    EXPECT_THAT(client.status().message(), HasSubstr(other.path()));
  }
}

TEST(QmpConnect, missing_dead_and_impossible_sockets_are_told_apart) {
  TestDirectory directory;
  EXPECT_TRUE(absl::IsNotFound(QmpClient::Connect(directory.File("no"), In(kPatience)).status()));
  std::string path;
  {
    FakeQmpServer ended;
    path = directory.File("dead");
    std::filesystem::create_hard_link(ended.path(), path);
  }
  const auto dead = QmpClient::Connect(path, In(kPatience));
  EXPECT_TRUE(absl::IsUnavailable(dead.status())) << dead.status();
  EXPECT_THAT(dead.status().message(), HasSubstr("is QEMU running"));
  for (const std::string& impossible : {std::string(), std::string(200, 'x')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(QmpClient::Connect(impossible, In(kPatience)).status()));
  }
}

TEST_F(Qmp, refusal_comes_with_qemus_own_words_and_breaks_nothing) {
  qemu_.Refuse("cont", "the guest is on strike");
  qemu_.AnswerRaw("odd", "{\"error\": {\"class\": 7}}\n");
  qemu_.Return("stop", json::object());
  const auto qmp = Connected();
  const auto refused = qmp->Execute("cont");
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status()));
  EXPECT_THAT(refused.status().message(), HasSubstr("the guest is on strike"));
  EXPECT_THAT(refused.status().message(), HasSubstr("cont"));
  EXPECT_TRUE(absl::IsFailedPrecondition(qmp->Execute("odd").status()));
  EXPECT_TRUE(qmp->Execute("stop").ok());
}

TEST_F(Qmp, answer_that_is_none_ends_the_client) {
  for (const char* odd : {"{}\n", "{\"error\": \"text\"}\n", "{\"event\": 7}\n{\"x\": 1}\n"}) {
    qemu_.AnswerRaw("odd", odd);
    qemu_.Return("stop", json::object());
    const auto qmp = Connected();
    EXPECT_TRUE(absl::IsInvalidArgument(qmp->Execute("odd").status())) << odd;
    EXPECT_FALSE(qmp->Execute("stop").ok()) << odd;
  }
}

TEST_F(Qmp, late_answer_is_never_taken_for_that_of_the_next_command) {
  qemu_.AnswerRaw("slow", "");
  qemu_.AnswerRaw("next", "{\"return\": \"slow\"}\n{\"return\": \"next\"}\n");
  const auto qmp = Connected();
  ASSERT_TRUE(qmp->Send("slow", json::object()).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(qmp->WaitAnswer(In(kMoment)).status()));
  const auto next = qmp->Execute("next");
  EXPECT_FALSE(next.ok());
  EXPECT_THAT(next.status().message(), HasSubstr("slow"));
}

TEST_F(Qmp, events_around_an_answer_are_kept_in_order) {
  qemu_.AnswerRaw("stop",
                  "{\"event\": \"ONE\", \"data\": {\"n\": 1}}\n{\"event\": \"TWO\"}\n"
                  "{\"return\": 5}\n{\"event\": \"THREE\"}\n");
  const auto qmp = Connected();
  EXPECT_EQ(qmp->Execute("stop").value_or(json()), 5);
  std::string seen;
  const auto three = qmp->WaitEvent(
      [&seen](const QmpEvent& event) {
        seen += event.name + " ";
        return event.name == "THREE";
      },
      In(kPatience));
  ASSERT_TRUE(three.ok()) << three.status();
  EXPECT_EQ(seen, "ONE TWO THREE ");
  EXPECT_TRUE(three->data.is_null());
}

TEST_F(Qmp, waiting_for_an_event_in_vain_breaks_nothing) {
  qemu_.AnswerRaw("go", "{\"event\": \"OTHER\"}\n{\"return\": {}}\n");
  const auto qmp = Connected();
  const auto never = [](const QmpEvent&) { return false; };
  EXPECT_TRUE(absl::IsDeadlineExceeded(qmp->WaitEvent(never, In(kMoment)).status()));
  EXPECT_TRUE(qmp->Execute("go").ok());
  qmp->ForgetEvents();
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      qmp->WaitEvent([](const QmpEvent&) { return true; }, In(kMoment)).status()));
}

TEST_F(Qmp, time_stamp_of_an_event_is_a_point_of_our_clock) {
  const auto ago = std::chrono::system_clock::now().time_since_epoch() - 10s;
  const auto stamp = std::chrono::duration_cast<std::chrono::seconds>(ago).count();
  qemu_.AnswerRaw(
      "go", json{{"event", "E"}, {"timestamp", {{"seconds", stamp}, {"microseconds", 0}}}}.dump() +
                "\n{\"return\": {}}\n");
  const auto qmp = Connected();
  ASSERT_TRUE(qmp->Execute("go").ok());
  const auto event = qmp->WaitEvent([](const QmpEvent&) { return true; }, In(kPatience));
  ASSERT_TRUE(event.ok());
  EXPECT_LE(event->when, Clock::now() - 10s);
}

TEST_F(Qmp, time_stamp_out_of_this_world_is_now) {
  constexpr auto kMost = std::numeric_limits<int64_t>::max();
  constexpr auto kLeast = std::numeric_limits<int64_t>::min();
  const auto qmp = Connected();
  for (const json& stamp :
       {json{{"seconds", kMost}, {"microseconds", kMost}},
        json{{"seconds", kLeast}, {"microseconds", kLeast}},
        json{{"seconds", -1}, {"microseconds", -1}}, json{{"seconds", "1"}}, json("now"),
        json{{"seconds", std::numeric_limits<uint64_t>::max()}, {"microseconds", 0}},
        json{{"seconds", 1.5}, {"microseconds", 0}}}) {
    qemu_.AnswerRaw("go",
                    json{{"event", "E"}, {"timestamp", stamp}}.dump() + "\n{\"return\": {}}\n");
    const Deadline before = Clock::now();
    ASSERT_TRUE(qmp->Execute("go").ok());
    const auto event = qmp->WaitEvent([](const QmpEvent&) { return true; }, In(kPatience));
    ASSERT_TRUE(event.ok());
    EXPECT_GE(event->when, before) << stamp;
    EXPECT_LE(event->when, Clock::now()) << stamp;
  }
}

TEST_F(Qmp, qemu_that_ends_is_an_error_at_once_and_from_then_on) {
  qemu_.HangUpAt("quit");
  const auto qmp = Connected();
  const auto gone = qmp->Execute("quit");
  EXPECT_TRUE(absl::IsUnavailable(gone.status())) << gone.status();
  EXPECT_THAT(gone.status().message(), HasSubstr("quit"));
  EXPECT_FALSE(qmp->Execute("query-status").ok());
  EXPECT_FALSE(qmp->WaitEvent([](const QmpEvent&) { return true; }, In(kPatience)).ok());
}

TEST_F(Qmp, descriptor_travels_with_its_command) {
  qemu_.Return("getfd", json::object());
  const auto qmp = Connected();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  ASSERT_TRUE(qmp->Execute("getfd", {{"fdname", "x"}}, writer.get()).ok());
  writer.Reset();
  auto fds = qemu_.TakeFds();
  ASSERT_EQ(fds.size(), 1u);
  ASSERT_EQ(::write(fds[0].get(), "y", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(reader.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
}

}  // namespace
}  // namespace ramferry
