#include "hypervisor-glue/qemu/vcpu_duty_cycle.h"

#include <sys/ptrace.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <utility>

#include "base/deadline.h"
#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

using Milliseconds = std::chrono::duration<double, std::milli>;

constexpr double kPeriodMs = 10;
// How often signals for running threads are looked for.
constexpr double kLookMs = 0.2;

}  // namespace

absl::StatusOr<std::unique_ptr<VcpuDutyCycle>> VcpuDutyCycle::Start(std::vector<pid_t> threads,
                                                                    double share) {
  std::unique_ptr<VcpuDutyCycle> cycle(new VcpuDutyCycle());
  cycle->share_ = share;
  // ptrace(2) knows the thread that attached, and no other.
  cycle->tracer_ =
      std::thread([&cycle = *cycle, threads = std::move(threads)] { cycle.Run(threads); });
  std::unique_lock lock(cycle->mutex_);
  cycle->changed_.wait(lock, [&cycle] { return cycle->attached_; });
  const absl::Status result = cycle->result_;
  lock.unlock();
  if (!result.ok()) return result;
  return cycle;
}

VcpuDutyCycle::~VcpuDutyCycle() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (tracer_.joinable()) tracer_.join();
}

absl::Status VcpuDutyCycle::Attach(const std::vector<pid_t>& threads) {
  for (const pid_t thread : threads) {
    if (::ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) == 0) {
      traced_.push_back({.id = thread});
    } else if (errno == EPERM) {
      return absl::PermissionDeniedError(fmt::format(
          "may not attach to thread {} of its QEMU: run as root or with CAP_SYS_PTRACE, without a "
          "debugger on it",
          thread));
    } else if (errno != ESRCH) {
      return ErrnoStatus(errno, fmt::format("cannot attach to thread {} of its QEMU", thread));
    }
  }
  return absl::OkStatus();
}

bool VcpuDutyCycle::Sleep(double ms) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, Milliseconds(ms), [this] { return ending_; });
}

void VcpuDutyCycle::Run(const std::vector<pid_t>& threads) {
  absl::Status status = Attach(threads);
  const bool ok = status.ok();
  if (!ok) {
    StopAll();
    Detach();
  }
  {
    const std::lock_guard lock(mutex_);
    result_ = std::move(status);
    attached_ = true;
  }
  changed_.notify_all();
  if (!ok) return;
  for (bool go_on = true; go_on;) {
    const double run_ms = std::clamp(share_.load(), 0.0, 1.0) * kPeriodMs;
    const Deadline end =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(Milliseconds(run_ms));
    while (go_on && Clock::now() < end) {
      go_on = Sleep(kLookMs);
      HandleEvents(/*stopping=*/false);
    }
    StopAll();
    go_on = go_on && Sleep(kPeriodMs - run_ms);
    if (go_on) ContinueAll();
  }
  Detach();
}

void VcpuDutyCycle::HandleEvents(bool stopping) {
  for (Traced& thread : traced_) {
    int state = 0;
    if (thread.id == 0 || thread.stopped) continue;
    const pid_t changed = ::waitpid(thread.id, &state, __WALL | WNOHANG);
    if (changed == 0) continue;
    if (changed < 0 || !WIFSTOPPED(state)) {  // it has ended
      thread.id = 0;
      continue;
    }
    thread.stopped = true;
    // A stop of our asking has no signal; one for a signal waits for us to hand it on. SIGSTOP and
    // its like, which stop the whole process, are left to stop it: PTRACE_LISTEN.
    const bool asked = (state >> 16) == PTRACE_EVENT_STOP;
    if (asked && WSTOPSIG(state) != SIGTRAP) {
      (void)::ptrace(PTRACE_LISTEN, thread.id, nullptr, nullptr);
      thread.stopped = false;
      continue;
    }
    thread.signal = asked ? 0 : WSTOPSIG(state);
    if (stopping) continue;
    (void)::ptrace(PTRACE_CONT, thread.id, nullptr, static_cast<intptr_t>(thread.signal));
    thread.stopped = false;
    thread.signal = 0;
  }
}

void VcpuDutyCycle::StopAll() {
  for (const Traced& thread : traced_) {
    if (thread.id != 0 && !thread.stopped) {
      (void)::ptrace(PTRACE_INTERRUPT, thread.id, nullptr, nullptr);
    }
  }
  // A thread in the kernel may take its time; one of a process that was stopped by SIGSTOP never
  // reports: it stands still anyway.
  for (const Deadline end = Clock::now() + std::chrono::milliseconds(20); Clock::now() < end;) {
    HandleEvents(/*stopping=*/true);
    if (std::all_of(traced_.begin(), traced_.end(),
                    [](const Traced& thread) { return thread.id == 0 || thread.stopped; })) {
      return;
    }
    std::this_thread::sleep_for(Milliseconds(0.05));
  }
}

void VcpuDutyCycle::ContinueAll() {
  for (Traced& thread : traced_) {
    if (thread.id == 0 || !thread.stopped) continue;
    (void)::ptrace(PTRACE_CONT, thread.id, nullptr, static_cast<intptr_t>(thread.signal));
    thread.stopped = false;
    thread.signal = 0;
  }
}

void VcpuDutyCycle::Detach() {
  // One that could not be stopped is let go by the kernel when this thread ends.
  for (const Traced& thread : traced_) {
    if (thread.id == 0 || !thread.stopped) continue;
    (void)::ptrace(PTRACE_DETACH, thread.id, nullptr, static_cast<intptr_t>(thread.signal));
  }
  traced_.clear();
}

}  // namespace ramferry
