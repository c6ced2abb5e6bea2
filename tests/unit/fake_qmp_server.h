// A QEMU monitor that says what a test wants: QMP on a unix socket, served by a thread of its own.
//
//   FakeQmpServer qemu;                                   // greets, and takes qmp_capabilities
//   qemu.Return("query-status", {{"status", "running"}}); // what to answer from now on
//   qemu.AnswerRaw("stop", "not JSON\n");                 // bytes as they are; "" for silence
//   auto qmp = QmpClient::Connect(qemu.path(), In(5s));
//
// Commands nobody prepared get QEMU's CommandNotFound. Serves one client after the other;
// thread-safe.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/cancellation.h"
#include "base/unique_fd.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/qemu/qmp_client.h"

namespace ramferry {

// A directory that goes with the test.
class TestDirectory {
 public:
  TestDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "ramferry-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data()) == nullptr ? "" : name;
    EXPECT_FALSE(path_.empty()) << "no temporary directory";
  }
  ~TestDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;
  [[nodiscard]] std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

class FakeQmpServer {
 public:
  using json = nlohmann::json;
  // The bytes to send for a command with these arguments.
  using Handler = std::function<std::string(const json& arguments)>;
  static constexpr const char* kGreeting =
      R"({"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}}, "capabilities": []}})";

  // `greeting` is sent to every client, with a line end; empty: none, as when another has the
  // monitor.
  explicit FakeQmpServer(std::string greeting = kGreeting) : greeting_(std::move(greeting)) {
    Return("qmp_capabilities", json::object());
    path_ = directory_.File("qmp");
    listener_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX};
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0);
    EXPECT_EQ(::listen(listener_.get(), 8), 0);
    server_ = std::thread([this] { Serve(); });
  }
  ~FakeQmpServer() { Stop(); }

  [[nodiscard]] const std::string& path() const { return path_; }

  void Handle(const std::string& command, Handler handler) {
    const std::lock_guard lock(mutex_);
    handlers_[command] = std::move(handler);
  }
  void AnswerRaw(const std::string& command, const std::string& bytes) {
    Handle(command, [bytes](const json&) { return bytes; });
  }
  void Return(const std::string& command, const json& value) {
    AnswerRaw(command, json{{"return", value}}.dump() + "\n");
  }
  void Refuse(const std::string& command, const std::string& why) {
    AnswerRaw(command, json{{"error", {{"class", "GenericError"}, {"desc", why}}}}.dump() + "\n");
  }
  // Ends the connection in place of an answer.
  void HangUpAt(const std::string& command) {
    const std::lock_guard lock(mutex_);
    hang_up_at_ = command;
  }

  // What came besides qmp_capabilities, in order.
  [[nodiscard]] std::vector<json> commands() const {
    const std::lock_guard lock(mutex_);
    return commands_;
  }
  void ForgetCommands() {
    const std::lock_guard lock(mutex_);
    commands_.clear();
  }
  // Descriptors that came along with commands; the caller owns them.
  [[nodiscard]] std::vector<UniqueFd> TakeFds() {
    const std::lock_guard lock(mutex_);
    return std::move(fds_);
  }
  void Stop() {
    stop_.Request("the test ends");
    if (server_.joinable()) server_.join();
    listener_.Reset();
  }

 private:
  bool WaitFor(int fd) {
    pollfd waiting[] = {{.fd = fd, .events = POLLIN}, {.fd = stop_.fd(), .events = POLLIN}};
    while (::poll(waiting, 2, -1) < 0 && errno == EINTR) {
    }
    return waiting[1].revents == 0;
  }
  static void SendAll(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }
  void Serve() {
    while (WaitFor(listener_.get())) {
      const UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client.valid()) return;
      if (!greeting_.empty()) SendAll(client.get(), greeting_ + "\n");
      std::string received;
      while (WaitFor(client.get()) && Receive(client.get(), received)) {
        bool hang_up = false;
        for (size_t end; !hang_up && (end = received.find('\n')) != std::string::npos;) {
          hang_up = !Answer(client.get(), received.substr(0, end));
          received.erase(0, end + 1);
        }
        if (hang_up) break;
      }
    }
  }
  bool Receive(int client, std::string& received) {
    char bytes[4096];
    iovec part{.iov_base = bytes, .iov_len = sizeof bytes};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{.msg_iov = &part,
                   .msg_iovlen = 1,
                   .msg_control = control,
                   .msg_controllen = sizeof control};
    const ssize_t got = ::recvmsg(client, &message, MSG_CMSG_CLOEXEC);
    if (got <= 0) return false;
    if (const cmsghdr* header = CMSG_FIRSTHDR(&message);
        header != nullptr && header->cmsg_type == SCM_RIGHTS) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
      const std::lock_guard lock(mutex_);
      fds_.emplace_back(fd);
    }
    received.append(bytes, static_cast<size_t>(got));
    return true;
  }
  bool Answer(int client, const std::string& line) {
    const json command = json::parse(line, nullptr, false);
    EXPECT_TRUE(command.is_object() && command.contains("execute")) << line;
    const std::string name = command["execute"].get<std::string>();
    Handler handler;
    {
      const std::lock_guard lock(mutex_);
      if (name != "qmp_capabilities") commands_.push_back(command);
      if (name == hang_up_at_) return false;
      if (const auto found = handlers_.find(name); found != handlers_.end()) {
        handler = found->second;
      }
    }
    SendAll(client,
            handler ? handler(command.value("arguments", json::object()))
                    : R"({"error": {"class": "CommandNotFound", "desc": "no )" + name + "\"}}\n");
    return true;
  }

  const std::string greeting_;
  TestDirectory directory_;
  std::string path_;
  UniqueFd listener_;
  Cancellation stop_;
  mutable std::mutex mutex_;  // guards what follows
  std::map<std::string, Handler> handlers_;
  std::string hang_up_at_;
  std::vector<json> commands_;
  std::vector<UniqueFd> fds_;
  std::thread server_;  // last: it uses the others
};

}  // namespace ramferry
