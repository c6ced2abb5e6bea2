#include "hypervisor-glue/qemu/qemu_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <sstream>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"

extern char** environ;

namespace ramferry {

absl::StatusOr<std::unique_ptr<QemuProcess>> QemuProcess::Start(
    const std::vector<std::string>& argv, const std::string& log) {
  UniqueFd output(::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!output.valid()) return ErrnoStatus(errno, "cannot write QEMU's log " + log);
  std::vector<char*> words;
  words.reserve(argv.size() + 1);
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output.get(), 1);
  posix_spawn_file_actions_adddup2(&actions, output.get(), 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  sigset_t defaults;
  sigfillset(&defaults);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, words[0], &actions, &attributes, words.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus(error, fmt::format("cannot start {}", argv[0]));
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  return std::unique_ptr<QemuProcess>(new QemuProcess(pid, std::move(process), log));
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
