// What a killed ramferry left of a guest that was on its way here.
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>

#include "base/status.h"
#include "base/unique_fd.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/qemu_again.h"
#include "hypervisor-glue/qemu/qemu_destination.h"
#include "hypervisor-glue/qemu/qmp_announce.h"
#include "hypervisor-glue/qemu/qmp_json.h"
#include "hypervisor-glue/qemu/time_limits.h"

namespace ramferry {
namespace {

using nlohmann::json;

json Parse(const std::string& undo) {
  return json::parse(undo, nullptr, /*allow_exceptions=*/false);
}

absl::Status Quit(QmpClient& qmp) {
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, qmp.peer_pid(), 0)));
  RETURN_IF_ERROR(qmp.Execute("quit").status());
  pollfd ended{.fd = process.get(), .events = POLLIN};
  if (process.valid() && ::poll(&ended, 1, MillisecondsLeft(In(kQuitTime))) == 0) {
    return absl::DeadlineExceededError(
        fmt::format("QEMU (process {}) was told to quit and does not end: kill it, then resolve",
                    qmp.peer_pid()));
  }
  return absl::OkStatus();
}

// Unlinks what a QEMU of ours left, unless somebody else uses its name by now.
void RemoveFiles(const std::string& qmp_path, const json& record) {
  if (!Field<bool>(record, "started")) return;
  if (QmpClient::Listens(qmp_path)) return;
  ::unlink(qmp_path.c_str());
  for (const json& file : Field<json>(record, "files", json::array())) {
    if (file.is_string()) ::unlink(file.get<std::string>().c_str());
  }
}

}  // namespace

std::string QemuDestination::undo_record() const {
  json record = json::parse(settings_.UndoRecord());
  record["files"] = own_files_;
  record["started"] = started_ != nullptr;
  record["process"] = ProcessRecord(*qmp_);
  return record.dump();
}

absl::Status QemuDestination::TakeOver(const std::string& qmp_path, const std::string& undo,
                                       bool run) {
  ASSIGN_OR_RETURN(auto qmp, ConnectAgain(qmp_path, Parse(undo)));
  ASSIGN_OR_RETURN(const json status, qmp->Execute("query-status"));
  // Any other state than this one, in which a loaded guest waits, says that it has run.
  if (run && Field<std::string>(status, "status") == "paused") {
    RETURN_IF_ERROR(qmp->Execute("cont").status());
    RETURN_IF_ERROR(AnnounceSelf(*qmp));
  }
  ASSIGN_OR_RETURN(MigrationSettings settings, MigrationSettings::FromUndoRecord(undo));
  return settings.Restore(*qmp);
}

absl::Status QemuDestination::DiscardLeftover(const std::string& qmp_path, const std::string& undo,
                                              bool may_run) {
  const json record = Parse(undo);
  auto qmp = ConnectAgain(qmp_path, record);
  if (!qmp.ok() && !absl::IsNotFound(qmp.status())) {
    if (may_run || !Field<bool>(record, "started")) return qmp.status();
    RETURN_IF_ERROR(KillAgain(record));  // it does not listen yet, or is frozen
  }
  if (qmp.ok()) {
    ASSIGN_OR_RETURN(const json status, (*qmp)->Execute("query-status"));
    if (Field<bool>(status, "running")) {
      return absl::FailedPreconditionError(fmt::format(
          "the QEMU at {} runs: it is not what an unfinished migration leaves behind", qmp_path));
    }
    // An operator's QEMU that still waits for its first guest serves the next attempt.
    const bool waits = Field<std::string>(status, "status") == "inmigrate";
    if (!waits || Field<bool>(record, "started")) RETURN_IF_ERROR(Quit(**qmp));
  }
  RemoveFiles(qmp_path, record);
  return absl::OkStatus();
}

}  // namespace ramferry
