#include "hypervisor-glue/xen/toolstack.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <sstream>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

extern char** environ;

namespace ramferry {
namespace {

using std::chrono::seconds;

// For xl to say or do something simple: destroying devices runs scripts.
constexpr seconds kXlTime{60};
// Between two looks at whether xl has read its pipe.
constexpr int kLookAgainMs = 2;

struct Child {
  pid_t pid = 0;
  UniqueFd process;
};

// Starts argv in a session of its own. `input` and `output` become its standard input, and output
// and error.
absl::StatusOr<Child> Spawn(const std::vector<std::string>& argv, int input, int output) {
  std::vector<char*> words;
  words.reserve(argv.size() + 1);
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input, 0);
  posix_spawn_file_actions_adddup2(&actions, output, 1);
  posix_spawn_file_actions_adddup2(&actions, output, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  sigset_t defaults;
  sigfillset(&defaults);  // libxl must find SIGCHLD as it is by default
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  Child child;
  const int error =
      ::posix_spawnp(&child.pid, words[0], &actions, &attributes, words.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus(error, fmt::format("cannot start {}", argv[0]));
  child.process.Reset(static_cast<int>(::syscall(SYS_pidfd_open, child.pid, 0)));
  return child;
}

// True when it ended in time. Its exit code, or -1: it was killed, or nobody may know (where
// children are not waited for).
bool AwaitEnd(const Child& child, Deadline deadline, int& code) {
  code = -1;
  pollfd waiting{.fd = child.process.get(), .events = POLLIN};
  while (::poll(&waiting, 1, MillisecondsLeft(deadline)) != 1) {
    if (Clock::now() >= deadline) return false;
  }
  int status = 0;
  if (::waitpid(child.pid, &status, 0) == child.pid && WIFEXITED(status)) {
    code = WEXITSTATUS(status);
  }
  return true;
}

// Runs xl, and returns what it printed. NotFound where it cannot be started.
absl::StatusOr<std::string> RunXl(const std::vector<std::string>& argv) {
  const UniqueFd output(static_cast<int>(::memfd_create("xl", MFD_CLOEXEC)));
  const UniqueFd input(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!output.valid() || !input.valid()) return ErrnoStatus(errno, "cannot run xl");
  ASSIGN_OR_RETURN(const Child child, Spawn(argv, input.get(), output.get()));
  int code = -1;
  if (!AwaitEnd(child, In(kXlTime), code)) {
    return absl::DeadlineExceededError(fmt::format("`xl {}` does not end", argv[1]));
  }
  std::string text(static_cast<size_t>(::lseek(output.get(), 0, SEEK_END)), '\0');
  if (::pread(output.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return ErrnoStatus(errno, "cannot read what xl printed");
  }
  if (code > 0) {
    return absl::InternalError(fmt::format("`xl {}` failed: {}", argv[1], text));
  }
  return text;
}

}  // namespace

absl::StatusOr<std::string> ConfigurationOf(const XenDomain& domain) {
  ASSIGN_OR_RETURN(const std::string text,
                   RunXl({"xl", "list", "--long", fmt::format("{}", domain.id)}));
  // Warnings may come before it.
  const size_t begin = text.find_first_of("[{");
  auto listed = nlohmann::json::parse(begin == std::string::npos ? "" : text.substr(begin), nullptr,
                                      /*allow_exceptions=*/false);
  if (listed.is_array() && listed.size() == 1) listed = listed[0];
  if (!listed.is_object() || !listed.contains("config") || !listed["config"].is_object()) {
    return absl::FailedPreconditionError(fmt::format(
        "xl does not know how domain {} was configured: was it started by xl or libvirt?",
        domain.name));
  }
  return listed["config"].dump();
}

absl::Status DestroyDomain(const XenControl& xen, const XenDomain& domain) {
  if (absl::IsNotFound(xen.StateOf(domain).status())) return absl::OkStatus();
  const absl::Status done = RunXl({"xl", "destroy", fmt::format("{}", domain.id)}).status();
  // A dying domain lives on until the last mapping of its memory is gone, and cannot run.
  const auto state = xen.StateOf(domain);
  if (absl::IsNotFound(state.status()) || (state.ok() && state->dying)) return absl::OkStatus();
  return done.ok() ? absl::InternalError(
                         fmt::format("domain {} survived `xl destroy {}`", domain.name, domain.id))
                   : done;
}

absl::StatusOr<std::unique_ptr<DomainBuilder>> DomainBuilder::Start(const std::string& log) {
  const UniqueFd output(::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!output.valid()) return ErrnoStatus(errno, "cannot write xl's log " + log);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "no pipe to feed xl with");
  const UniqueFd input(ends[0]);
  std::unique_ptr<DomainBuilder> builder(new DomainBuilder);
  builder->stream_.Reset(ends[1]);
  builder->log_ = log;
  // Paused, and with a process that stays to look after the domain, as `xl create` has it.
  ASSIGN_OR_RETURN(Child child,
                   Spawn({"xl", "restore", "-p", "/proc/self/fd/0"}, input.get(), output.get()));
  builder->pid_ = child.pid;
  builder->process_ = std::move(child.process);
  return builder;
}

DomainBuilder::~DomainBuilder() {
  if (stream_.valid()) Abandon(In(kXlTime));
}

bool DomainBuilder::Ended() const {
  pollfd waiting{.fd = process_.get(), .events = POLLIN};
  return ::poll(&waiting, 1, 0) == 1;
}

absl::Status DomainBuilder::Failure() const {
  std::ifstream file(log_);
  std::stringstream text;
  text << file.rdbuf();
  std::string tail = text.str();
  constexpr size_t kMost = 800;
  if (tail.size() > kMost) tail.erase(0, tail.size() - kMost);
  while (!tail.empty() && tail.back() == '\n') tail.pop_back();
  return absl::FailedPreconditionError(
      fmt::format("xl could not build the domain ({}):\n{}", log_, tail));
}

absl::Status DomainBuilder::Feed(std::span<const std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    pollfd room{.fd = stream_.get(), .events = POLLOUT};
    if (::poll(&room, 1, MillisecondsLeft(deadline)) != 1) {
      return absl::DeadlineExceededError("xl does not go on reading");
    }
    // What a pipe that has room takes without blocking.
    const ssize_t written =
        ::write(stream_.get(), bytes.data(), std::min<size_t>(bytes.size(), PIPE_BUF));
    if (written < 0 && errno == EPIPE) return Failure();
    if (written < 0 && errno != EINTR) return ErrnoStatus(errno, "cannot feed xl");
    if (written > 0) bytes = bytes.subspan(static_cast<size_t>(written));
  }
  for (;;) {
    int unread = 0;
    if (::ioctl(stream_.get(), FIONREAD, &unread) != 0) return ErrnoStatus(errno, "xl's pipe");
    if (unread == 0) return absl::OkStatus();
    if (Ended()) return Failure();
    if (Clock::now() > deadline) {
      return absl::DeadlineExceededError(
          "xl does not go on reading (is it building another domain?)");
    }
    ::poll(nullptr, 0, kLookAgainMs);
  }
}

absl::Status DomainBuilder::Finish(Deadline deadline) {
  stream_.Reset();
  int code = -1;
  const Child child{.pid = pid_, .process = UniqueFd(process_.Release())};
  if (!AwaitEnd(child, deadline, code)) {
    return absl::DeadlineExceededError(fmt::format("xl does not finish the domain ({})", log_));
  }
  return code > 0 ? Failure() : absl::OkStatus();
}

void DomainBuilder::Abandon(Deadline deadline) {
  stream_.Reset();
  if (!process_.valid()) return;
  int code = -1;
  const Child child{.pid = pid_, .process = UniqueFd(process_.Release())};
  if (AwaitEnd(child, deadline, code)) return;
  ::syscall(SYS_pidfd_send_signal, child.process.get(), SIGKILL, nullptr, 0);
  (void)::waitpid(child.pid, &code, 0);
}

}  // namespace ramferry
