#include "hypervisor-glue/qemu/qemu_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <sstream>
#include <utility>

#include "base/deadline.h"
#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// Where the child's end of the gate is. It has no other descriptors but the standard ones.
constexpr int kGate = 3;
// From our word to the child's exec(3).
constexpr std::chrono::seconds kExecTime{20};

// The child, alone in a copy of our memory: nothing but system calls, or it could wait for a lock
// that another of our threads held at that moment.
[[noreturn]] void WaitAndBecome(char* const* words, int output, int gate) {
  ::setsid();
  // Up and out of the way first: they may have the very numbers that they are to get.
  constexpr int kSpare = 64;
  const int sources[] = {::open("/dev/null", O_RDONLY), output, output, gate};
  int spares[4];
  for (int i = 0; i < 4; ++i) spares[i] = ::fcntl(sources[i], F_DUPFD, kSpare);
  for (int i = 0; i < 4; ++i) ::dup2(spares[i], i);
  ::syscall(SYS_close_range, kGate + 1, ~0U, 0);
  ::fcntl(kGate, F_SETFD, FD_CLOEXEC);
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);

  char byte = 0;
  ssize_t got = 0;
  do {
    got = ::read(kGate, &byte, 1);
  } while (got < 0 && errno == EINTR);
  if (got != 1) ::_exit(0);  // nobody is left who wants it
  ::execvp(words[0], words);
  const int error = errno;
  [[maybe_unused]] const ssize_t told = ::write(kGate, &error, sizeof error);
  ::_exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<QemuProcess>> QemuProcess::Prepare(
    const std::vector<std::string>& argv, const std::string& log) {
  const UniqueFd output(::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!output.valid()) return ErrnoStatus(errno, "cannot write QEMU's log " + log);
  std::vector<char*> words;
  words.reserve(argv.size() + 1);
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoStatus(errno, "cannot make a socket pair to start QEMU with");
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  // Not fork(): what libraries do around that takes their locks.
  const pid_t pid = ::_Fork();
  if (pid == 0) WaitAndBecome(words.data(), output.get(), theirs.get());
  if (pid < 0) return ErrnoStatus(errno, fmt::format("cannot start {}", argv[0]));
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  return std::unique_ptr<QemuProcess>(
      new QemuProcess(pid, std::move(process), argv[0], log, std::move(ours)));
}

absl::Status QemuProcess::Go() {
  const UniqueFd gate = std::move(gate_);
  const char byte = 1;
  int error = ::send(gate.get(), &byte, 1, MSG_NOSIGNAL) == 1 ? 0 : errno;
  pollfd answer{.fd = gate.get(), .events = POLLIN};
  if (error == 0 && ::poll(&answer, 1, MillisecondsLeft(In(kExecTime))) != 1) error = ETIMEDOUT;
  // Its end of the gate is closed by a successful exec(3).
  // Where it was killed instead, whoever looks for what it should have become finds that out.
  if (error == 0 && ::recv(gate.get(), &error, sizeof error, 0) < 0) error = 0;
  if (error == 0) return absl::OkStatus();
  Kill();
  return ErrnoStatus(error, fmt::format("cannot start {}", program_));
}

absl::StatusOr<std::unique_ptr<QemuProcess>> QemuProcess::Start(
    const std::vector<std::string>& argv, const std::string& log) {
  ASSIGN_OR_RETURN(auto process, Prepare(argv, log));
  RETURN_IF_ERROR(process->Go());
  return process;
}

QemuProcess::~QemuProcess() {
  if (gate_.valid()) Kill();
}

bool QemuProcess::ended() const {
  pollfd waiting{.fd = process_.get(), .events = POLLIN};
  return ::poll(&waiting, 1, 0) == 1;
}

void QemuProcess::Kill() {
  if (pid_ <= 0) return;
  ::syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0);
  ::waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

std::string QemuProcess::LogTail() const {
  std::ifstream file(log_);
  std::stringstream text;
  text << file.rdbuf();
  std::string tail = text.str();
  constexpr size_t kMost = 600;
  if (tail.size() > kMost) tail.erase(0, tail.size() - kMost);
  while (!tail.empty() && tail.back() == '\n') tail.pop_back();
  return tail.empty() ? "(it printed nothing)" : tail;
}

}  // namespace ramferry
