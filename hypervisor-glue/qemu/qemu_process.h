// A QEMU that Ramferry started for a guest to land in.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace ramferry {

class QemuProcess {
 public:
  // A process, in a session of its own, that becomes argv at Go, with the same number; its output
  // goes to the file `log`. In between it can be written down. Should we end before Go, it ends.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<QemuProcess>> Prepare(
      const std::vector<std::string>& argv, const std::string& log);
  // Returns when argv runs, which from then on outlives us. Once.
  [[nodiscard]] absl::Status Go();
  // Both.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<QemuProcess>> Start(
      const std::vector<std::string>& argv, const std::string& log);
  // Does not end a process that was let go: Kill does.
  ~QemuProcess();

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool ended() const;
  // Kills it and waits until it has ended. Idempotent.
  void Kill();
  // The last lines it printed, for error messages.
  [[nodiscard]] std::string LogTail() const;

 private:
  QemuProcess(pid_t pid, UniqueFd process, std::string program, std::string log, UniqueFd gate)
      : pid_(pid),
        process_(std::move(process)),
        program_(std::move(program)),
        log_(std::move(log)),
        gate_(std::move(gate)) {}

  pid_t pid_;
  UniqueFd process_;  // pidfd
  std::string program_;
  std::string log_;
  UniqueFd gate_;  // until Go: a byte lets the process go on, the end of it ends it
};

}  // namespace ramferry
