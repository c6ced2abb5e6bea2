#include "hypervisor-glue/qemu/remote_userfaultfd.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "base/run_apart.h"
#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// The address of a `syscall` instruction (0f 05) in the process's vDSO.
absl::StatusOr<uint64_t> FindSyscallInstruction(pid_t pid) {
  std::ifstream maps(fmt::format("/proc/{}/maps", pid));
  std::string line;
  while (std::getline(maps, line)) {
    if (!line.ends_with("[vdso]")) continue;
    const uint64_t start = std::stoull(line, nullptr, 16);
    const uint64_t end = std::stoull(line.substr(line.find('-') + 1), nullptr, 16);
    const UniqueFd memory(::open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDONLY | O_CLOEXEC));
    std::vector<unsigned char> code(end - start);
    if (::pread(memory.get(), code.data(), code.size(), static_cast<off_t>(start)) !=
        static_cast<ssize_t>(code.size())) {
      return ErrnoStatus(errno, fmt::format("cannot read the vDSO of process {}", pid));
    }
    constexpr unsigned char kSyscall[] = {0x0f, 0x05};
    const auto at = std::search(code.begin(), code.end(), std::begin(kSyscall), std::end(kSyscall));
    if (at != code.end()) return start + static_cast<uint64_t>(at - code.begin());
  }
  return absl::UnimplementedError(fmt::format(
      "process {} has no vDSO with a system call in it (kernel booted with vdso=0?)", pid));
}

// One thread, stopped by ptrace; runs on as it was when this object goes.
class StoppedThread {
 public:
  static absl::StatusOr<StoppedThread> Stop(pid_t pid) {
    if (::ptrace(PTRACE_SEIZE, pid, 0, 0) != 0) {
      if (errno == EPERM) {
        return absl::PermissionDeniedError(fmt::format(
            "may not attach to process {}: run as root or with CAP_SYS_PTRACE; no debugger may be "
            "attached to it; /proc/sys/kernel/yama/ptrace_scope must be below 3",
            pid));
      }
      return ErrnoStatus(errno, fmt::format("cannot attach to process {}", pid));
    }
    StoppedThread thread(pid);
    if (::ptrace(PTRACE_INTERRUPT, pid, 0, 0) != 0) {
      return ErrnoStatus(errno, fmt::format("cannot stop process {}", pid));
    }
    RETURN_IF_ERROR(thread.WaitStop());
    if (::ptrace(PTRACE_GETREGS, pid, 0, &thread.saved_) != 0) {
      return ErrnoStatus(errno, fmt::format("cannot read the registers of process {}", pid));
    }
    thread.have_registers_ = true;
    return thread;
  }

  StoppedThread(StoppedThread&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)),
        have_registers_(other.have_registers_),
        saved_(other.saved_),
        pending_(std::move(other.pending_)) {}
  StoppedThread& operator=(StoppedThread&&) = delete;

  ~StoppedThread() {
    if (pid_ == 0) return;
    // The saved orig_rax and -ERESTART* in rax make the kernel restart an interrupted call.
    if (have_registers_) ::ptrace(PTRACE_SETREGS, pid_, 0, &saved_);
    ::ptrace(PTRACE_DETACH, pid_, 0, 0);
    for (const int signal : pending_) ::kill(pid_, signal);
  }

  // Runs one system call in the thread: its result, or its negated errno.
  absl::StatusOr<int64_t> Call(uint64_t instruction, uint64_t number, uint64_t argument) {
    // A signal stops the thread before the instruction; with the signal put aside, it is tried
    // again. The limit is far above the number of signals that can be pending for a thread.
    for (int tries = 0; tries < 1000; ++tries) {
      user_regs_struct registers = saved_;
      registers.rip = instruction;
      registers.rax = number;
      registers.rdi = argument;
      registers.orig_rax = ~0ULL;  // the call about to be made is not one to restart
      if (::ptrace(PTRACE_SETREGS, pid_, 0, &registers) != 0 ||
          ::ptrace(PTRACE_SINGLESTEP, pid_, 0, 0) != 0) {
        return ErrnoStatus(errno, fmt::format("cannot run a system call in process {}", pid_));
      }
      RETURN_IF_ERROR(WaitStop());
      if (::ptrace(PTRACE_GETREGS, pid_, 0, &registers) != 0) {
        return ErrnoStatus(errno, fmt::format("cannot read the registers of process {}", pid_));
      }
      if (registers.rip == instruction + 2) return static_cast<int64_t>(registers.rax);
    }
    return absl::UnavailableError(
        fmt::format("process {} is flooded with signals; try again", pid_));
  }

 private:
  explicit StoppedThread(pid_t pid) : pid_(pid) {}

  // Waits for the next stop. A signal that arrives meanwhile is kept for after the detach.
  absl::Status WaitStop() {
    int status = 0;
    while (::waitpid(pid_, &status, __WALL) < 0) {
      if (errno != EINTR) return ErrnoStatus(errno, fmt::format("lost process {}", pid_));
    }
    if (!WIFSTOPPED(status)) {
      pid_ = 0;
      return absl::UnavailableError("the process ended while it was being attached to");
    }
    const int signal = WSTOPSIG(status);
    if (signal != SIGTRAP && (status >> 16) != PTRACE_EVENT_STOP) pending_.push_back(signal);
    return absl::OkStatus();
  }

  pid_t pid_;
  bool have_registers_ = false;
  user_regs_struct saved_{};
  std::vector<int> pending_;
};

absl::StatusOr<UniqueFd> Take(pid_t pid) {
  ASSIGN_OR_RETURN(const uint64_t instruction, FindSyscallInstruction(pid));
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process.valid()) return ErrnoStatus(errno, fmt::format("cannot open process {}", pid));

  ASSIGN_OR_RETURN(StoppedThread thread, StoppedThread::Stop(pid));
  // USER_MODE_ONLY lets an unprivileged QEMU open it. It limits which faults may be *handed to* a
  // handler; asynchronous mode hands over none, and notes the kernel's own writes all the same.
  ASSIGN_OR_RETURN(const int64_t remote, thread.Call(instruction, SYS_userfaultfd,
                                                     O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
  if (remote < 0) {
    return ErrnoStatus(static_cast<int>(-remote),
                       fmt::format("process {} cannot open a userfaultfd (its seccomp filter, or "
                                   "the kernel's configuration, forbids it)",
                                   pid));
  }
  UniqueFd ours(
      static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), static_cast<int>(remote), 0)));
  const int error = errno;
  const auto closed = thread.Call(instruction, SYS_close, static_cast<uint64_t>(remote));
  if (!ours.valid()) {
    return ErrnoStatus(error, fmt::format("cannot take a userfaultfd over from process {}", pid));
  }
  RETURN_IF_ERROR(closed.status());
  return ours;
}

}  // namespace

absl::StatusOr<UniqueFd> TakeUserfaultfd(pid_t pid) {
  absl::StatusOr<UniqueFd> taken = absl::UnavailableError("not tried");
  RETURN_IF_ERROR(RunApart([&] { taken = Take(pid); }));
  return taken;
}

}  // namespace ramferry
