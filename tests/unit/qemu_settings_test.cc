// QEMU's migration settings are changed as little as needed and put back exactly; and the
// device-state stream, which comes to its end or to an error.
#include <sys/socket.h>

#include <chrono>

#include "fake_qmp_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/qemu/migration_settings.h"
#include "hypervisor-glue/qemu/state_pipe.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::HasSubstr;
using States = std::map<std::string, bool>;

const States kBefore = {
    {"x-ignore-shared", false},     {"events", true},       {"pause-before-switchover", false},
    {"late-block-activate", false}, {"xbzrle", true},       {"compress", false},
    {"dirty-bitmaps", true},        {"validate-uuid", true}};

class SettingsOfQemu : public testing::Test {
 protected:
  SettingsOfQemu() {
    Has(kBefore);
    qemu_.Return("query-migrate-parameters", {{"max-bandwidth", 1000}});
    qemu_.Return("migrate-set-capabilities", json::object());
    qemu_.Return("migrate-set-parameters", json::object());
    client_ = *QmpClient::Connect(qemu_.path(), In(20s));
  }
  void Has(const States& states) {
    json list = json::array();
    for (const auto& [name, state] : states)
      list.push_back({{"capability", name}, {"state", state}});
    qemu_.Return("query-migrate-capabilities", list);
  }
  MigrationSettings Read() {
    auto settings = MigrationSettings::Read(*client_);
    EXPECT_TRUE(settings.ok()) << settings.status();
    qemu_.ForgetCommands();
    return *std::move(settings);
  }
  // The capabilities and the bandwidth that were set since the last call.
  States TakeSet(uint64_t* bandwidth = nullptr) {
    States states;
    for (const json& command : qemu_.commands()) {
      if (command["execute"] == "migrate-set-parameters") {
        if (bandwidth != nullptr) *bandwidth = command["arguments"]["max-bandwidth"];
        continue;
      }
      EXPECT_EQ(command["execute"], "migrate-set-capabilities");
      for (const json& entry : command["arguments"]["capabilities"]) {
        states[entry["capability"]] = entry["state"];
      }
    }
    qemu_.ForgetCommands();
    return states;
  }
  FakeQmpServer qemu_;
  std::unique_ptr<QmpClient> client_;
};

TEST_F(SettingsOfQemu, only_what_differs_is_set_and_all_of_it_is_put_back) {
  MigrationSettings settings = Read();
  uint64_t bandwidth = 0;
  ASSERT_TRUE(settings.ApplyForSource(*client_).ok());
  EXPECT_EQ(
      TakeSet(&bandwidth),
      (States{{"x-ignore-shared", true}, {"pause-before-switchover", true}, {"xbzrle", false}}));
  EXPECT_GT(bandwidth, 1u << 30);
  ASSERT_TRUE(settings.Restore(*client_).ok());
  EXPECT_EQ(
      TakeSet(&bandwidth),
      (States{{"x-ignore-shared", false}, {"pause-before-switchover", false}, {"xbzrle", true}}));
  EXPECT_EQ(bandwidth, 1000u);
  ASSERT_TRUE(settings.Restore(*client_).ok());  // once is enough
  EXPECT_TRUE(qemu_.commands().empty());
}

TEST_F(SettingsOfQemu, destination_takes_its_disks_when_the_guest_runs) {
  MigrationSettings settings = Read();
  ASSERT_TRUE(settings.ApplyForDestination(*client_).ok());
  EXPECT_EQ(TakeSet(),
            (States{{"x-ignore-shared", true}, {"late-block-activate", true}, {"xbzrle", false}}));
}

TEST_F(SettingsOfQemu, nothing_applied_is_nothing_to_put_back) {
  MigrationSettings settings = Read();
  ASSERT_TRUE(settings.Restore(*client_).ok());
  EXPECT_TRUE(qemu_.commands().empty());
}

TEST_F(SettingsOfQemu, half_applied_settings_are_put_back_too) {
  MigrationSettings settings = Read();
  qemu_.Refuse("migrate-set-parameters", "no");
  EXPECT_TRUE(absl::IsFailedPrecondition(settings.ApplyForSource(*client_)));
  qemu_.Return("migrate-set-parameters", json::object());
  TakeSet();
  ASSERT_TRUE(settings.Restore(*client_).ok());
  EXPECT_EQ(
      TakeSet(),
      (States{{"x-ignore-shared", false}, {"pause-before-switchover", false}, {"xbzrle", true}}));
}

TEST_F(SettingsOfQemu, restore_that_was_refused_can_be_tried_again) {
  MigrationSettings settings = Read();
  ASSERT_TRUE(settings.ApplyForSource(*client_).ok());
  qemu_.Refuse("migrate-set-capabilities", "a migration is active");
  EXPECT_FALSE(settings.Restore(*client_).ok());
  qemu_.Return("migrate-set-capabilities", json::object());
  TakeSet();
  ASSERT_TRUE(settings.Restore(*client_).ok());
  EXPECT_EQ(TakeSet().size(), 3u);
}

TEST_F(SettingsOfQemu, undo_record_restores_in_another_process) {
  const std::string record = Read().UndoRecord();
  auto settings = MigrationSettings::FromUndoRecord(record);
  ASSERT_TRUE(settings.ok()) << settings.status();
  uint64_t bandwidth = 0;
  ASSERT_TRUE(settings->Restore(*client_).ok());
  States expected = kBefore;
  expected.erase("dirty-bitmaps");  // the owner's business, before as after
  expected.erase("validate-uuid");
  EXPECT_EQ(TakeSet(&bandwidth), expected);
  EXPECT_EQ(bandwidth, 1000u);
}

TEST(UndoRecord, that_is_none_is_refused) {
  for (const char* text : {"", "x", "[]", "{}", R"({"capabilities": []})", "7"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(MigrationSettings::FromUndoRecord(text).status())) << text;
  }
  EXPECT_TRUE(MigrationSettings::FromUndoRecord(
                  R"({"capabilities": {"a": 1, "b": true}, "max-bandwidth": "x"})")
                  .ok());
}

TEST_F(SettingsOfQemu, qemu_without_a_capability_is_refused_by_name) {
  for (const char* needed : {"x-ignore-shared", "events", "pause-before-switchover"}) {
    States states = kBefore;
    states.erase(needed);
    Has(states);
    const absl::Status status = Read().CheckSource();
    EXPECT_TRUE(absl::IsFailedPrecondition(status));
    EXPECT_THAT(status.message(), HasSubstr(needed));
  }
  States states = kBefore;
  states.erase("late-block-activate");
  Has(states);
  EXPECT_TRUE(Read().CheckSource().ok());
  EXPECT_THAT(Read().CheckDestination().message(), HasSubstr("late-block-activate"));
}

TEST_F(SettingsOfQemu, list_of_capabilities_that_is_none_is_an_error) {
  for (const json& odd : {json("x"), json::array({1}), json::array({{{"capability", 1}}}),
                          json::array({{{"capability", "a"}, {"state", "on"}}})}) {
    qemu_.Return("query-migrate-capabilities", odd);
    EXPECT_TRUE(absl::IsInvalidArgument(MigrationSettings::Read(*client_).status())) << odd;
  }
}

class Pipe : public testing::Test {
 protected:
  Pipe() {
    qemu_.Return("getfd", json::object());
    client_ = *QmpClient::Connect(qemu_.path(), In(20s));
    pipe_ = *StatePipe::Open(*client_);
    auto fds = qemu_.TakeFds();
    EXPECT_EQ(fds.size(), 1u);
    theirs_ = std::move(fds.at(0));
  }
  FakeQmpServer qemu_;
  std::unique_ptr<QmpClient> client_;
  std::unique_ptr<StatePipe> pipe_;
  UniqueFd theirs_;
};

TEST_F(Pipe, has_the_name_under_which_qemu_got_its_end) {
  const auto commands = qemu_.commands();
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(pipe_->uri(), "fd:" + commands[0]["arguments"]["fdname"].get<std::string>());
}

TEST_F(Pipe, everything_written_arrives_before_the_end) {
  std::string got;
  pipe_->StartReading([&got](std::span<const std::byte> bytes) {
    got.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return absl::OkStatus();
  });
  const std::string text(1'000'000, 'd');
  for (size_t at = 0; at < text.size();) {
    const ssize_t sent = ::send(theirs_.get(), text.data() + at, text.size() - at, MSG_NOSIGNAL);
    ASSERT_GT(sent, 0);
    at += static_cast<size_t>(sent);
  }
  theirs_.Reset();
  EXPECT_TRUE(pipe_->WaitEnd().ok());
  EXPECT_EQ(got, text);
}

TEST_F(Pipe, state_that_nobody_takes_is_not_taken_from_qemu) {
  pipe_->StartReading([](std::span<const std::byte>) { return absl::AbortedError("no room"); });
  ASSERT_EQ(::send(theirs_.get(), "x", 1, MSG_NOSIGNAL), 1);
  EXPECT_EQ(pipe_->WaitEnd(), absl::AbortedError("no room"));
  EXPECT_EQ(::send(theirs_.get(), "y", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_F(Pipe, closing_ends_a_reader_that_waits_and_qemu_sees_it) {
  pipe_->StartReading([](std::span<const std::byte>) { return absl::OkStatus(); });
  pipe_->Close();
  pipe_->Close();
  char byte = 0;
  EXPECT_EQ(::recv(theirs_.get(), &byte, 1, 0), 0);
}

TEST_F(Pipe, written_state_arrives_and_ends) {
  const std::string text = "device state";
  ASSERT_TRUE(pipe_->Write(std::as_bytes(std::span(text)), In(20s)).ok());
  pipe_->CloseWrite();
  char bytes[64];
  EXPECT_EQ(::recv(theirs_.get(), bytes, sizeof bytes, MSG_WAITALL),
            static_cast<ssize_t>(text.size()));
}

TEST_F(Pipe, qemu_that_does_not_read_is_given_up_and_one_that_went_is_an_error) {
  const std::vector<std::byte> much(16 << 20);
  EXPECT_TRUE(absl::IsDeadlineExceeded(pipe_->Write(much, In(20ms))));
  theirs_.Reset();
  EXPECT_FALSE(pipe_->Write(much, In(20s)).ok());
}

TEST(PipeRefused, qemus_word_is_passed_on) {
  FakeQmpServer qemu;
  qemu.Refuse("getfd", "too many");
  const auto client = QmpClient::Connect(qemu.path(), In(20s));
  EXPECT_THAT(StatePipe::Open(**client).status().message(), HasSubstr("too many"));
}

}  // namespace
}  // namespace ramferry
