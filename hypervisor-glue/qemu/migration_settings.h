// QEMU's migration capabilities and parameters: set for our switch-over, and put back exactly.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hypervisor-glue/qemu/qmp_client.h"

namespace ramferry {

class MigrationSettings {
 public:
  // Reads what is set now. Changes nothing.
  [[nodiscard]] static absl::StatusOr<MigrationSettings> Read(QmpClient& qmp);

  // What Restore would need in another process, as JSON; and from it, settings whose Restore does
  // it.
  [[nodiscard]] std::string UndoRecord() const;
  [[nodiscard]] static absl::StatusOr<MigrationSettings> FromUndoRecord(const std::string& record);

  // FailedPrecondition when this QEMU lacks what a move needs, with what to do.
  [[nodiscard]] absl::Status CheckSource() const;
  [[nodiscard]] absl::Status CheckDestination() const;

  // Only shared memory is left out, only devices are sent, the guest stops and waits for us.
  [[nodiscard]] absl::Status ApplyForSource(QmpClient& qmp);
  [[nodiscard]] absl::Status ApplyForDestination(QmpClient& qmp);
  // Puts back what Apply changed. Idempotent; QEMU refuses while a migration is active.
  [[nodiscard]] absl::Status Restore(QmpClient& qmp);

 private:
  [[nodiscard]] absl::Status Check(std::initializer_list<const char*> needed) const;
  [[nodiscard]] absl::Status Apply(QmpClient& qmp, std::initializer_list<const char*> on);

  std::map<std::string, bool> before_;
  uint64_t max_bandwidth_before_ = 0;  // bytes a second
  std::map<std::string, bool> undo_;   // what Restore sets
  bool applied_ = false;
};

}  // namespace ramferry
