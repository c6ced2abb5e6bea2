// Takes a userfaultfd over from a running process that knows nothing of it.
//
// Dirt is tracked through a userfaultfd that belongs to QEMU's address space, and only QEMU itself
// can open one. So QEMU is stopped with ptrace for about 0.2 ms, and its main thread is made to
// call userfaultfd(2) and, once we hold a duplicate (pidfd_getfd(2)), close(2). No code of the
// process is changed: a `syscall` instruction that its vDSO already has is used, and an interrupted
// system call of the thread is restarted by the kernel as after any signal. A process apart does it
// (base/run_apart.h), so that QEMU is not left in the middle of it when this one is killed.
//
// Needs root or CAP_SYS_PTRACE, and an x86-64 kernel and process.
#pragma once

#include <sys/types.h>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace ramferry {

// A new userfaultfd of process `pid`, held by us alone. On an error the process goes on as before.
[[nodiscard]] absl::StatusOr<UniqueFd> TakeUserfaultfd(pid_t pid);

}  // namespace ramferry
