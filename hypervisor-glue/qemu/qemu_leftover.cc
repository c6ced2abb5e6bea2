// What a killed ramferry left of a guest that was on its way here.
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>

#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/qemu_destination.h"
#include "hypervisor-glue/qemu/qmp_announce.h"
#include "hypervisor-glue/qemu/qmp_json.h"

namespace ramferry {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kConnectTime{5};

}  // namespace

std::string QemuDestination::undo_record() const {
  return json{{"files", own_files_}, {"started", started_ != nullptr}}.dump();
}

absl::StatusOr<bool> QemuDestination::Runs(const std::string& qmp_path) {
  ASSIGN_OR_RETURN(auto qmp, QmpClient::Connect(qmp_path, In(kConnectTime)));
  ASSIGN_OR_RETURN(const json status, qmp->Execute("query-status"));
  return Field<bool>(status, "running");
}

absl::Status QemuDestination::Resume(const std::string& qmp_path) {
  ASSIGN_OR_RETURN(auto qmp, QmpClient::Connect(qmp_path, In(kConnectTime)));
  RETURN_IF_ERROR(qmp->Execute("cont").status());
  return AnnounceSelf(*qmp);
}

absl::Status QemuDestination::DiscardLeftover(const std::string& qmp_path,
                                              const std::string& undo) {
  auto qmp = QmpClient::Connect(qmp_path, In(kConnectTime));
  if (!qmp.ok() && !SaysThatQemuHasEnded(qmp.status())) return qmp.status();
  if (qmp.ok()) {
    ASSIGN_OR_RETURN(const json status, (*qmp)->Execute("query-status"));
    if (Field<bool>(status, "running")) {
      return absl::FailedPreconditionError(fmt::format(
          "the QEMU at {} runs: it is not what an unfinished migration leaves behind", qmp_path));
    }
    // Nobody else waits for it: it was started by a ramferry that is dead.
    RETURN_IF_ERROR((*qmp)->Execute("quit").status());
  }
  const json record = json::parse(undo, nullptr, /*allow_exceptions=*/false);
  if (!Field<bool>(record, "started")) return absl::OkStatus();
  ::unlink(qmp_path.c_str());
  for (const json& file : Field<json>(record, "files", json::array())) {
    if (file.is_string()) ::unlink(file.get<std::string>().c_str());
  }
  return absl::OkStatus();
}

}  // namespace ramferry
