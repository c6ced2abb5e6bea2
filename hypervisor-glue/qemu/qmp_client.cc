#include "hypervisor-glue/qemu/qmp_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/qmp_json.h"

namespace ramferry {
namespace {

using nlohmann::json;

absl::Status SendAll(int socket, std::string_view bytes, int fd) {
  while (!bytes.empty()) {
    iovec part{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
    msghdr message{.msg_iov = &part, .msg_iovlen = 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
    if (fd >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof fd);
      std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    const ssize_t sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EPIPE || errno == ECONNRESET) {
        return absl::UnavailableError("QEMU closed its QMP socket (has it ended?)");
      }
      return ErrnoStatus(errno, "cannot send to QEMU's QMP socket");
    }
    bytes.remove_prefix(static_cast<size_t>(sent));
    fd = -1;
  }
  return absl::OkStatus();
}

// QEMU takes one client at a time. A few more can connect and wait; for the next, and for those
// that have gone since, connect(2) itself would wait: for this long at most (0: for ever).
absl::Status LimitSending(int socket, int milliseconds) {
  const timeval limit{.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
  if (::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0) {
    return ErrnoStatus(errno, "cannot set a time limit on a socket");
  }
  return absl::OkStatus();
}

absl::Status MonitorTaken(const std::string& path) {
  return absl::DeadlineExceededError(
      fmt::format("QEMU does not greet on {}: another client is connected to this monitor; give "
                  "Ramferry one of its own (a second -qmp)",
                  path));
}

// QEMU stamps events with the wall clock; the time that has passed since is the same on ours.
Deadline StampOf(const json& message) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto stamp = message.find("timestamp");
  if (stamp == message.end() || !stamp->is_object()) return Clock::now();
  const auto whole = stamp->find("seconds");
  const auto microseconds = stamp->find("microseconds");
  if (whole == stamp->end() || microseconds == stamp->end() || !whole->is_number_integer() ||
      !microseconds->is_number_integer()) {
    return Clock::now();
  }
  // Whole seconds first: any integer may stand here (QEMU itself says -1 when it has no clock), and
  // sums and products of such must not overflow.
  constexpr int64_t kSecondsKept = 3600;
  const int64_t now_seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  const auto stamped = whole->get<int64_t>();
  const auto fraction = microseconds->get<int64_t>();
  // A stamp from the future or from long ago says that the wall clock was set meanwhile.
  if (stamped < now_seconds - kSecondsKept || stamped > now_seconds || fraction < 0 ||
      fraction > 999'999) {
    return Clock::now();
  }
  const auto ago = now - std::chrono::seconds(stamped) - std::chrono::microseconds(fraction);
  if (ago < std::chrono::seconds(0)) return Clock::now();
  return Clock::now() - std::chrono::duration_cast<Clock::duration>(ago);
}

}  // namespace

absl::Status QmpParser::Feed(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    line_.append(bytes.substr(0, end));
    if (line_.size() > kLongestLine) {
      return absl::InvalidArgumentError("QEMU sent a QMP line without end");
    }
    if (end == std::string_view::npos) return absl::OkStatus();
    bytes.remove_prefix(end + 1);
    if (line_.find_first_not_of(" \r\t") != std::string::npos) {
      json message = json::parse(line_, nullptr, /*allow_exceptions=*/false);
      if (!message.is_object()) {
        return absl::InvalidArgumentError("this is not a QMP socket: it sent no JSON object");
      }
      messages_.push_back(std::move(message));
    }
    line_.clear();
  }
  return absl::OkStatus();
}

std::optional<json> QmpParser::Next() {
  if (messages_.empty()) return std::nullopt;
  json message = std::move(messages_.front());
  messages_.pop_front();
  return message;
}

absl::StatusOr<std::unique_ptr<QmpClient>> QmpClient::Connect(const std::string& path,
                                                              Deadline deadline) {
  sockaddr_un address{.sun_family = AF_UNIX};
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' cannot be a QMP socket: the path of a socket has 1 to {} characters",
                    path, sizeof address.sun_path - 1));
  }
  path.copy(address.sun_path, path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return ErrnoStatus(errno, "cannot make a socket");
  RETURN_IF_ERROR(LimitSending(socket.get(), std::max(MillisecondsLeft(deadline), 1)));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == EAGAIN) return MonitorTaken(path);
    return ErrnoStatus(errno,
                       fmt::format("cannot connect to the QMP socket {} (is QEMU running, with "
                                   "-qmp unix:{},server=on,wait=off ?)",
                                   path, path));
  }
  RETURN_IF_ERROR(LimitSending(socket.get(), 0));
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return ErrnoStatus(errno, "cannot tell which process serves " + path);
  }
  std::unique_ptr<QmpClient> client(new QmpClient(std::move(socket), path, peer.pid));
  client->waiting_for_ = "its greeting";
  auto greeting = client->ReadReply(deadline, "its greeting");
  if (absl::IsDeadlineExceeded(greeting.status())) return MonitorTaken(path);
  if (!greeting.ok()) return greeting.status();
  if (!greeting->contains("QMP")) {
    return absl::InvalidArgumentError(path + " is not a QMP socket: it sent no QMP greeting");
  }
  RETURN_IF_ERROR(client->Execute("qmp_capabilities").status());
  return client;
}

bool QmpClient::Listens(const std::string& path) {
  sockaddr_un address{.sun_family = AF_UNIX};
  if (path.empty() || path.size() >= sizeof address.sun_path) return false;
  path.copy(address.sun_path, path.size());
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
             0 ||
         (errno != ENOENT && errno != ECONNREFUSED);
}

absl::Status QmpClient::ReadMore(Deadline deadline) {
  if (!broken_.ok()) return broken_;
  pollfd waiting{.fd = socket_.get(), .events = POLLIN};
  const int ready = ::poll(&waiting, 1, MillisecondsLeft(deadline));
  if (ready < 0 && errno != EINTR) return broken_ = ErrnoStatus(errno, "cannot wait for QEMU");
  if (ready <= 0) {
    if (Clock::now() < deadline) return absl::OkStatus();
    return absl::DeadlineExceededError("QEMU did not answer on " + path_ + " in time");
  }
  char buffer[16384];
  const ssize_t got = ::recv(socket_.get(), buffer, sizeof buffer, 0);
  if (got < 0 && errno == EINTR) return absl::OkStatus();
  if (got <= 0) {
    return broken_ =
               absl::UnavailableError("QEMU closed its QMP socket " + path_ + " (has it ended?)");
  }
  if (absl::Status fed = parser_.Feed({buffer, static_cast<size_t>(got)}); !fed.ok()) {
    return broken_ = Annotate(fed, path_);
  }
  while (auto message = parser_.Next()) {
    const auto event = message->find("event");
    if (event == message->end()) {
      replies_.push_back(std::move(*message));
    } else if (event->is_string()) {
      events_.push_back({.name = event->get<std::string>(),
                         .data = Field<json>(*message, "data"),
                         .when = StampOf(*message)});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<json> QmpClient::ReadReply(Deadline deadline, std::string_view what) {
  while (replies_.empty()) {
    if (absl::Status status = ReadMore(deadline); !status.ok()) {
      return Annotate(status, fmt::format("waiting for {}", what));
    }
  }
  json reply = std::move(replies_.front());
  replies_.pop_front();
  return reply;
}

absl::Status QmpClient::Send(std::string_view command, const json& arguments, int fd) {
  if (!broken_.ok()) return broken_;
  json message = {{"execute", command}};
  if (!arguments.empty()) message["arguments"] = arguments;
  waiting_for_ = std::string(command);
  absl::Status sent = SendAll(socket_.get(), message.dump() + "\n", fd);
  if (!sent.ok()) broken_ = sent;
  return sent;
}

absl::StatusOr<json> QmpClient::WaitAnswer(Deadline deadline) {
  auto reply = ReadReply(deadline, "QEMU's answer to " + waiting_for_);
  if (!reply.ok()) {
    // A late answer would be taken for that of the next command.
    if (broken_.ok()) broken_ = reply.status();
    return reply.status();
  }
  if (const auto error = reply->find("error"); error != reply->end() && error->is_object()) {
    const auto text = error->find("desc");
    return absl::FailedPreconditionError(fmt::format(
        "QEMU refused {}: {}", waiting_for_,
        text != error->end() && text->is_string() ? text->get<std::string>() : error->dump()));
  }
  const auto value = reply->find("return");
  if (value == reply->end()) {
    return broken_ = absl::InvalidArgumentError(
               fmt::format("QEMU's answer to {} is neither a return nor an error", waiting_for_));
  }
  return *value;
}

absl::StatusOr<json> QmpClient::Execute(std::string_view command, const json& arguments, int fd) {
  RETURN_IF_ERROR(Send(command, arguments, fd));
  return WaitAnswer(In(kAnswerTime));
}

absl::StatusOr<QmpEvent> QmpClient::WaitEvent(const std::function<bool(const QmpEvent&)>& wanted,
                                              Deadline deadline) {
  for (;;) {
    while (!events_.empty()) {
      QmpEvent event = std::move(events_.front());
      events_.pop_front();
      if (wanted(event)) return event;
    }
    RETURN_IF_ERROR(ReadMore(deadline));
  }
}

}  // namespace ramferry
