#include "hypervisor-glue/qemu/qemu_again.h"

#include <chrono>

#include "base/process_identity.h"
#include "base/status.h"
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

json ProcessRecord(const QmpClient& qmp) {
  const ProcessIdentity process = IdentityOf(qmp.peer_pid());
  return {{"boot_id", process.boot_id}, {"pid", process.pid}, {"started", process.started}};
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
