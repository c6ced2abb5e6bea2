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
  // Starts argv in a session of its own, so that it outlives us; its output goes to the file `log`.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<QemuProcess>> Start(
      const std::vector<std::string>& argv, const std::string& log);
  // Does not end the process: Kill does.
  ~QemuProcess() = default;

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool ended() const;
  // Kills it and waits until it has ended. Idempotent.
  void Kill();
  // The last lines it printed, for error messages.
  [[nodiscard]] std::string LogTail() const;

 private:
  QemuProcess(pid_t pid, UniqueFd process, std::string log)
      : pid_(pid), process_(std::move(process)), log_(std::move(log)) {}

  pid_t pid_;
  UniqueFd process_;  // pidfd
  std::string log_;
};

}  // namespace ramferry
