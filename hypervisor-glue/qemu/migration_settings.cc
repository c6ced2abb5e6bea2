#include "hypervisor-glue/qemu/migration_settings.h"

#include <algorithm>

#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/qmp_json.h"

namespace ramferry {
namespace {

using nlohmann::json;

// Capabilities that are the owner's business and do not stand in our way.
bool Kept(const std::string& capability) {
  return capability == "dirty-bitmaps" || capability == "validate-uuid";
}

absl::Status SetCapabilities(QmpClient& qmp, const std::map<std::string, bool>& states) {
  json list = json::array();
  for (const auto& [name, state] : states) {
    list.push_back({{"capability", name}, {"state", state}});
  }
  return qmp.Execute("migrate-set-capabilities", {{"capabilities", list}}).status();
}

}  // namespace

absl::StatusOr<MigrationSettings> MigrationSettings::Read(QmpClient& qmp) {
  MigrationSettings settings;
  ASSIGN_OR_RETURN(const json list, qmp.Execute("query-migrate-capabilities"));
  for (const json& entry : list) {
    if (!entry.is_object() || !entry.contains("capability") || !entry.contains("state") ||
        !entry["capability"].is_string() || !entry["state"].is_boolean()) {
      return absl::InvalidArgumentError("QEMU's list of migration capabilities is not one");
    }
    settings.before_[entry["capability"].get<std::string>()] = entry["state"].get<bool>();
  }
  ASSIGN_OR_RETURN(const json parameters, qmp.Execute("query-migrate-parameters"));
  if (const auto bandwidth = parameters.find("max-bandwidth");
      bandwidth != parameters.end() && bandwidth->is_number_unsigned()) {
    settings.max_bandwidth_before_ = bandwidth->get<uint64_t>();
  }
  return settings;
}

std::string MigrationSettings::UndoRecord() const {
  return json{{"capabilities", before_}, {"max-bandwidth", max_bandwidth_before_}}.dump();
}

absl::StatusOr<MigrationSettings> MigrationSettings::FromUndoRecord(const std::string& record) {
  const json object = json::parse(record, nullptr, /*allow_exceptions=*/false);
  const json capabilities = Field<json>(object, "capabilities");
  if (!capabilities.is_object()) {
    return absl::InvalidArgumentError("the journal's record of QEMU's settings is not one");
  }
  MigrationSettings settings;
  for (const auto& [name, state] : capabilities.items()) {
    if (state.is_boolean() && !Kept(name)) settings.undo_[name] = state.get<bool>();
  }
  settings.max_bandwidth_before_ = Field<uint64_t>(object, "max-bandwidth");
  settings.applied_ = true;
  return settings;
}

absl::Status MigrationSettings::Check(std::initializer_list<const char*> needed) const {
  for (const char* name : needed) {
    if (!before_.contains(name)) {
      return absl::FailedPreconditionError(fmt::format(
          "this QEMU has no migration capability '{}': QEMU 4.0 or newer is needed", name));
    }
  }
  return absl::OkStatus();
}

absl::Status MigrationSettings::CheckSource() const {
  return Check({"x-ignore-shared", "events", "pause-before-switchover"});
}
absl::Status MigrationSettings::CheckDestination() const {
  return Check({"x-ignore-shared", "events", "late-block-activate"});
}

absl::Status MigrationSettings::Apply(QmpClient& qmp, std::initializer_list<const char*> on) {
  std::map<std::string, bool> changes;
  for (const auto& [name, before] : before_) {
    const bool wanted = std::find(on.begin(), on.end(), name) != on.end();
    if (wanted != before && !Kept(name)) changes[name] = wanted;
  }
  applied_ = true;
  for (const auto& [name, wanted] : changes) undo_[name] = !wanted;
  if (!changes.empty()) RETURN_IF_ERROR(SetCapabilities(qmp, changes));
  return absl::OkStatus();
}

absl::Status MigrationSettings::ApplyForSource(QmpClient& qmp) {
  RETURN_IF_ERROR(Apply(qmp, {"x-ignore-shared", "events", "pause-before-switchover"}));
  // The few megabytes that are not in shared files (video memory) should not take QEMU's default
  // 128 MiB/s, which is there to spare networks.
  return qmp.Execute("migrate-set-parameters", {{"max-bandwidth", uint64_t{100} << 30}}).status();
}

absl::Status MigrationSettings::ApplyForDestination(QmpClient& qmp) {
  // late-block-activate: the disks are taken (and locked) when the guest starts here, not before.
  return Apply(qmp, {"x-ignore-shared", "events", "late-block-activate"});
}

absl::Status MigrationSettings::Restore(QmpClient& qmp) {
  if (!applied_) return absl::OkStatus();
  if (!undo_.empty()) RETURN_IF_ERROR(SetCapabilities(qmp, undo_));
  if (max_bandwidth_before_ != 0) {
    RETURN_IF_ERROR(
        qmp.Execute("migrate-set-parameters", {{"max-bandwidth", max_bandwidth_before_}}).status());
  }
  applied_ = false;
  undo_.clear();
  return absl::OkStatus();
}

}  // namespace ramferry
