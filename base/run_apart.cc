#include "base/run_apart.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstddef>

#include "base/status.h"
#include "fmt/format.h"

// clone(2) under the other name that the C library has for it: ThreadSanitizer takes the first one
// for a fork, with a copy of the memory.
extern "C" int __clone(int (*)(void*), void*, int, void*, ...) noexcept;  // NOLINT

namespace ramferry {
namespace {

constexpr size_t kStackBytes = 256 << 10;

int Work(void* work) {
  (*static_cast<const std::function<void()>*>(work))();
  return 0;
}

}  // namespace

absl::Status RunApart(const std::function<void()>& work) {
  void* const stack = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return ErrnoStatus(errno, "no memory for another process's stack");
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  // No signal when it ends: whoever waits for other children here does not get to see this one.
  const pid_t child = ::__clone(&Work, static_cast<std::byte*>(stack) + kStackBytes,
                                CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_VFORK,
                                const_cast<std::function<void()>*>(&work));
  const int error = errno;
  int status = 0;
  while (child > 0 && ::waitpid(child, &status, __WALL) < 0 && errno == EINTR) {
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::munmap(stack, kStackBytes);
  if (child < 0) return ErrnoStatus(error, "cannot start another process");
  if (!WIFEXITED(status)) {
    return absl::UnavailableError(
        fmt::format("process {} was killed (signal {}) at its work", child, WTERMSIG(status)));
  }
  return absl::OkStatus();
}

}  // namespace ramferry
