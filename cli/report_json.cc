#include "cli/report_json.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/status.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace ramferry {

std::string ToJson(const MigrationReport& report) {
  using nlohmann::ordered_json;
  const DowntimeParts& parts = report.downtime_parts;
  ordered_json rounds = ordered_json::array();
  for (const RoundReport& round : report.rounds) {
    rounds.push_back({{"number", round.number},
                      {"stopped", round.stopped},
                      {"pages", round.pages.value()},
                      {"zero_pages", round.zero_pages.value()},
                      {"bytes", round.bytes.value()},
                      {"ms", round.ms},
                      {"quiesced_ms", round.quiesced_ms},
                      {"idle_ms", round.idle_ms},
                      {"skipped_pages", round.skipped_pages.value()},
                      {"dirty_pages", round.dirty_pages.value()},
                      {"held_pages", round.held_pages.value()},
                      {"rate_limit", round.rate_limit.value()},
                      {"cpu_share", round.cpu_share},
                      {"dirty_rate", round.dirty_rate},
                      {"predicted_downtime_ms", round.predicted_downtime_ms},
                      {"predicted_rest_ms", round.predicted_rest_ms}});
  }
  ordered_json placement = ordered_json::array();
  for (const WorkerReport& worker : report.placement) {
    placement.push_back({{"cpus", worker.cpus},
                         {"node", worker.node},
                         {"memory_node", worker.memory_node},
                         {"nic", worker.nic},
                         {"pages", worker.pages.value()},
                         {"why", worker.why}});
  }
  ordered_json port = ordered_json::object();
  for (const auto& [name, value] : report.port_counters) port[name] = value;
  const ordered_json object = {{"outcome", NameOf(report.outcome)},
                               {"stage", NameOf(report.stage)},
                               {"error", report.error},
                               {"migration_id", report.migration_id},
                               {"guest", report.guest},
                               {"destination", report.destination},
                               {"transport", report.transport},
                               {"paths", report.paths},
                               {"port", port},
                               {"encrypted", report.encrypted},
                               {"workers", report.workers},
                               {"placement", placement},
                               {"total_ms", report.total_ms},
                               {"downtime_ms", report.downtime_ms},
                               {"downtime_parts",
                                {{"pause", parts.pause},
                                 {"last_pages", parts.last_pages},
                                 {"device_state", parts.device_state},
                                 {"verify", parts.verify},
                                 {"commit", parts.commit},
                                 {"resume", parts.resume}}},
                               {"predicted_downtime_ms", report.predicted_downtime_ms},
                               {"predicted_total_ms", report.predicted_total_ms},
                               {"rounds", rounds},
                               {"bytes_sent", report.bytes_sent.value()},
                               {"device_state_bytes", report.device_state_bytes.value()},
                               {"guest_bytes", BytesIn(report.guest_pages).value()},
                               {"cpu_seconds", report.cpu_seconds},
                               {"cpu_seconds_per_gb", report.cpu_seconds_per_gb()},
                               {"verified", report.verified}};
  return object.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

absl::Status CheckWritable(const std::string& path) {
  const bool there = ::access(path.c_str(), F_OK) == 0;
  const std::string directory = std::filesystem::path(path).parent_path().string();
  const std::string fallback = directory.empty() ? "." : directory;
  const std::string& asked = there ? path : fallback;
  if (there && std::filesystem::is_directory(path)) {
    return absl::InvalidArgumentError(fmt::format("{} is a directory: name a file", path));
  }
  if (::access(asked.c_str(), there ? W_OK : W_OK | X_OK) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "cannot write " + path);
}

absl::Status WriteJson(const MigrationReport& report, const std::string& path) {
  std::ofstream file(path);
  file << ToJson(report);
  file.close();
  if (!file) return ErrnoStatus(errno, "cannot write " + path);
  return absl::OkStatus();
}

}  // namespace ramferry
