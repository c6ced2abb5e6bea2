// Takes CPU time from some threads of another process: each ten milliseconds they run for a share
// of it and stand still for the rest.
//
//   ASSIGN_OR_RETURN(auto throttle, VcpuDutyCycle::Start(vcpu_threads, 0.3));
//   throttle->SetShare(0.2);
//   throttle.reset();                       // they run as before
//
// By ptrace: the kernel lets a traced thread run on when its tracer ends, however it ends. So a
// Ramferry that is killed leaves nothing behind, and there is nothing to undo. Only the threads
// named stand still, never the process: QEMU's main thread goes on answering. Signals for them are
// passed on, at most a fifth of a millisecond late.
//
// No debugger may be attached to them, as for the rest of Ramferry (remote_userfaultfd.h).
// Thread-safe.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ramferry {

class VcpuDutyCycle {
 public:
  // `share` from 0 to 1. PermissionDenied: may not attach. A thread that has ended is no error.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<VcpuDutyCycle>> Start(
      std::vector<pid_t> threads, double share);
  ~VcpuDutyCycle();
  VcpuDutyCycle(const VcpuDutyCycle&) = delete;
  VcpuDutyCycle& operator=(const VcpuDutyCycle&) = delete;

  void SetShare(double share) { share_ = share; }

 private:
  // A traced thread: of which the tracer is the thread of this object.
  struct Traced {
    pid_t id = 0;
    bool stopped = false;
    int signal = 0;  // to be given to it when it runs on
  };
  VcpuDutyCycle() = default;
  void Run(const std::vector<pid_t>& threads);
  [[nodiscard]] absl::Status Attach(const std::vector<pid_t>& threads);
  void StopAll();
  void ContinueAll();
  void HandleEvents(bool stopping);
  void Detach();
  // False: it is time to end.
  [[nodiscard]] bool Sleep(double ms);

  std::atomic<double> share_{1};
  std::vector<Traced> traced_;  // of the tracer only
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  bool ending_ = false;
  bool attached_ = false;  // or failed to
  absl::Status result_;
  std::thread tracer_;
};

}  // namespace ramferry
