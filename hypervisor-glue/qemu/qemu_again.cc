#include "hypervisor-glue/qemu/qemu_again.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <csignal>

#include "base/process_identity.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/qmp_json.h"
#include "hypervisor-glue/qemu/time_limits.h"

namespace ramferry {
namespace {

using nlohmann::json;

ProcessIdentity IdentityIn(const json& record) {
  const json process = Field<json>(record, "process");
  return {.boot_id = Field<std::string>(process, "boot_id"),
          .pid = Field<int64_t>(process, "pid"),
          .started = Field<int64_t>(process, "started")};
}

}  // namespace

json ProcessRecord(int64_t pid) {
  const ProcessIdentity process = IdentityOf(pid);
  return {{"boot_id", process.boot_id}, {"pid", process.pid}, {"started", process.started}};
}

json ProcessRecord(const QmpClient& qmp) {
  return ProcessRecord(qmp.peer_pid());
}

absl::Status KillAgain(const json& record) {
  const ProcessIdentity process = IdentityIn(record);
  const UniqueFd fd(
      static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(process.pid), 0)));
  // Asked after the descriptor was opened, which is then that very process's.
  if (!Lives(process)) return absl::OkStatus();
  if (!fd.valid() || ::syscall(SYS_pidfd_send_signal, fd.get(), SIGKILL, nullptr, 0) != 0) {
    return ErrnoStatus(errno, fmt::format("cannot kill QEMU (process {})", process.pid));
  }
  pollfd ended{.fd = fd.get(), .events = POLLIN};
  if (::poll(&ended, 1, MillisecondsLeft(In(kQuitTime))) == 0) {
    return absl::DeadlineExceededError(
        fmt::format("QEMU (process {}) was killed and does not end", process.pid));
  }
  return absl::OkStatus();
}

bool HasEnded(const json& record) {
  return !Lives(IdentityIn(record));
}

absl::StatusOr<std::unique_ptr<QmpClient>> ConnectAgain(const std::string& qmp_path,
                                                        const json& record) {
  const ProcessIdentity process = IdentityIn(record);
  if (process.pid == 0) {
    return absl::InvalidArgumentError("the journal does not say which QEMU it is about");
  }
  if (!Lives(process)) {
    return absl::NotFoundError(fmt::format("its QEMU (process {}) has ended", process.pid));
  }
  auto qmp = QmpClient::Connect(qmp_path, In(kConnectTime));
  if (!qmp.ok()) {
    if (!Lives(process)) return absl::NotFoundError("its QEMU has ended just now");
    return absl::FailedPreconditionError(
        fmt::format("its QEMU (process {}) lives, but: {}", process.pid, Message(qmp.status())));
  }
  if ((*qmp)->peer_pid() != process.pid) {
    return absl::FailedPreconditionError(
        fmt::format("its QEMU (process {}) lives, but at {} another one answers (process {})",
                    process.pid, qmp_path, (*qmp)->peer_pid()));
  }
  return qmp;
}

}  // namespace ramferry
