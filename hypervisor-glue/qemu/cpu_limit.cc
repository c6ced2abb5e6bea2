#include "hypervisor-glue/qemu/cpu_limit.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/qmp_json.h"

namespace ramferry {
namespace {

using nlohmann::json;

constexpr int64_t kLeastQuota = 1000;  // the kernel's

absl::StatusOr<std::string> ReadLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return absl::NotFoundError("cannot read " + path);
  return line;
}

// The path of a thread's cgroup in the v2 hierarchy: the line "0::PATH".
absl::StatusOr<std::string> GroupOf(const std::string& proc, pid_t pid, pid_t thread) {
  const std::string path = fmt::format("{}/{}/task/{}/cgroup", proc, pid, thread);
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::")) return line.substr(3);
  }
  return absl::NotFoundError("this host has no cgroup v2 for it (" + path + ")");
}

// Only threads of `pid` are in the group, and there are no groups below it, which its limit would
// hold for, too.
bool IsOwn(const std::string& group, const std::string& proc, pid_t pid) {
  std::error_code error;
  for (std::filesystem::directory_iterator entry(group, error), end; entry != end;
       entry.increment(error)) {
    if (entry->is_directory(error) || error) return false;
  }
  if (error) return false;
  std::ifstream file(group + "/cgroup.threads");
  if (!file) return false;
  bool any = false;
  for (pid_t thread = 0; file >> thread; any = true) {
    if (::access(fmt::format("{}/{}/task/{}", proc, pid, thread).c_str(), F_OK) != 0) return false;
  }
  return any;
}

absl::Status WriteLimit(const std::string& path, const std::string& value) {
  std::ofstream file(path);
  file << value << std::flush;
  return file ? absl::OkStatus() : ErrnoStatus(errno, "cannot write " + value + " to " + path);
}

bool IsOurs(const std::string& limit) {
  return limit.ends_with(fmt::format(" {}", CpuLimit::kPeriod));
}

}  // namespace

absl::StatusOr<CpuLimit> CpuLimit::Find(pid_t pid, const std::vector<pid_t>& threads,
                                        const std::string& root, const std::string& proc) {
  CpuLimit limit;
  for (const pid_t thread : threads) {
    ASSIGN_OR_RETURN(const std::string path, GroupOf(proc, pid, thread));
    const std::string group = root + path;
    const std::string file = group + "/cpu.max";
    const auto found = std::find_if(limit.groups_.begin(), limit.groups_.end(),
                                    [&file](const Group& other) { return other.file == file; });
    if (found != limit.groups_.end()) {
      ++found->threads;
      continue;
    }
    ASSIGN_OR_RETURN(std::string before, ReadLine(file));
    if (!IsOwn(group, proc, pid)) {
      return absl::NotFoundError("its cgroup " + path + " is not its own");
    }
    // A limit of a Ramferry that was killed is not what it was before.
    if (IsOurs(before)) before = "max 100000";
    limit.groups_.push_back({.file = file, .before = std::move(before), .threads = 1});
  }
  if (limit.groups_.empty()) return absl::NotFoundError("its virtual CPUs have no threads");
  return limit;
}

CpuLimit CpuLimit::FromRecord(const json& record) {
  CpuLimit limit;
  if (!record.is_array()) return limit;
  for (const json& group : record) {
    limit.groups_.push_back({.file = Field<std::string>(group, "file"),
                             .before = Field<std::string>(group, "before"),
                             .threads = 1});
  }
  return limit;
}

json CpuLimit::record() const {
  json record = json::array();
  for (const Group& group : groups_) {
    record.push_back({{"file", group.file}, {"before", group.before}});
  }
  return record;
}

absl::Status CpuLimit::Set(double share) const {
  for (const Group& group : groups_) {
    const auto quota = static_cast<int64_t>(share * static_cast<double>(kPeriod * group.threads));
    RETURN_IF_ERROR(
        WriteLimit(group.file, fmt::format("{} {}", std::max(quota, kLeastQuota), kPeriod)));
  }
  return absl::OkStatus();
}

absl::Status CpuLimit::Remove() const {
  absl::Status result;
  for (const Group& group : groups_) {
    const auto now = ReadLine(group.file);
    if (!now.ok() || !IsOurs(*now)) continue;  // the group, or the limit, is gone
    result.Update(WriteLimit(group.file, group.before));
  }
  return result;
}

}  // namespace ramferry
