// A client of QEMU's machine protocol (QMP): commands, answers, events.
//
//   ASSIGN_OR_RETURN(auto qmp, QmpClient::Connect("/run/guest.qmp", In(5s)));
//   ASSIGN_OR_RETURN(nlohmann::json status, qmp->Execute("query-status"));
//   ASSIGN_OR_RETURN(QmpEvent stop, qmp->WaitEvent([](auto& e) { return e.name == "STOP"; },
//   In(1s)));
//
// One owner, no threads of its own, not thread-safe. Everything QEMU sends is checked: bad JSON, a
// line without end or an answer nobody asked for is an error, after which the client is of no more
// use. Source: QEMU docs/interop/qmp-spec.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/unique_fd.h"
#include "nlohmann/json.hpp"

namespace ramferry {

struct QmpEvent {
  std::string name;     // e.g. "STOP"
  nlohmann::json data;  // null when the event has none
  Deadline when;        // QEMU's time stamp, as a point of our clock
};

// Splits a byte stream into QMP messages. Pure, for the fuzzer as well as for the client.
class QmpParser {
 public:
  // A QMP line is at most this long: query-qmp-schema, which is not asked for, has 200 KiB.
  static constexpr size_t kLongestLine = 4 << 20;

  // Adds received bytes; InvalidArgument when they cannot be QMP.
  [[nodiscard]] absl::Status Feed(std::string_view bytes);
  // The next whole message, an object; nothing when more bytes are needed.
  [[nodiscard]] std::optional<nlohmann::json> Next();

 private:
  std::string line_;
  std::deque<nlohmann::json> messages_;
};

class QmpClient {
 public:
  static constexpr std::chrono::seconds kAnswerTime{10};

  // Connects and negotiates. DeadlineExceeded when no greeting comes: another client has the
  // socket.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<QmpClient>> Connect(const std::string& path,
                                                                          Deadline deadline);

  // Whether any process listens at `path`: a connection is taken, or too many wait for one.
  [[nodiscard]] static bool Listens(const std::string& path);

  // The command's "return". QEMU's own error comes as FailedPrecondition with its description.
  // With `fd` (not negative) the descriptor travels along, as `getfd` needs it.
  [[nodiscard]] absl::StatusOr<nlohmann::json> Execute(
      std::string_view command, const nlohmann::json& arguments = nlohmann::json::object(),
      int fd = -1);

  // Sends a command whose answer must not be waited for now; WaitAnswer takes it.
  [[nodiscard]] absl::Status Send(std::string_view command, const nlohmann::json& arguments,
                                  int fd = -1);
  [[nodiscard]] absl::StatusOr<nlohmann::json> WaitAnswer(Deadline deadline);

  // The first event, past or coming, that `wanted` accepts; it and those before it are forgotten.
  // DeadlineExceeded when there is none in time.
  [[nodiscard]] absl::StatusOr<QmpEvent> WaitEvent(
      const std::function<bool(const QmpEvent&)>& wanted, Deadline deadline);
  void ForgetEvents() { events_.clear(); }

  // The process at the other end of the socket.
  [[nodiscard]] pid_t peer_pid() const { return peer_pid_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  QmpClient(UniqueFd socket, std::string path, pid_t peer_pid)
      : socket_(std::move(socket)), path_(std::move(path)), peer_pid_(peer_pid) {}
  // Takes in what comes until the deadline or the first whole message; events go to events_.
  [[nodiscard]] absl::Status ReadMore(Deadline deadline);
  [[nodiscard]] absl::StatusOr<nlohmann::json> ReadReply(Deadline deadline, std::string_view what);

  UniqueFd socket_;
  std::string path_;
  pid_t peer_pid_;
  QmpParser parser_;
  std::deque<QmpEvent> events_;
  std::deque<nlohmann::json> replies_;
  std::string waiting_for_;
  absl::Status broken_;
};

}  // namespace ramferry
