// Finding the very QEMU again that a ramferry, now dead, was at work on.
//
// A path of a QMP socket is no identity: another guest's QEMU may listen there by now. So the undo
// records of both sides hold the process (its number, start time and boot), and nothing is done to
// any other.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "hypervisor-glue/qemu/qmp_client.h"
#include "nlohmann/json.hpp"

namespace ramferry {

// A process, or that at the other end of `qmp`, for an undo record: its member "process".
[[nodiscard]] nlohmann::json ProcessRecord(int64_t pid);
[[nodiscard]] nlohmann::json ProcessRecord(const QmpClient& qmp);

// Connects to the QEMU of an undo record. NotFound: it has ended. FailedPrecondition: it lives, but
// does not answer at `qmp_path`.
[[nodiscard]] absl::StatusOr<std::unique_ptr<QmpClient>> ConnectAgain(const std::string& qmp_path,
                                                                      const nlohmann::json& record);

// Kills the process of an undo record, and no other, and waits until it has ended.
[[nodiscard]] absl::Status KillAgain(const nlohmann::json& record);

// Whether the process of an undo record has ended.
[[nodiscard]] bool HasEnded(const nlohmann::json& record);

}  // namespace ramferry
