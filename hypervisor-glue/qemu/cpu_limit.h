// Takes CPU time from the virtual CPUs of a QEMU by cgroup v2, where they have cgroups of their own
// (systemd scopes, libvirt): `cpu.max`, in cgroup-v2.rst of the kernel's documentation.
//
//   ASSIGN_OR_RETURN(CpuLimit limit, CpuLimit::Find(pid, vcpu_threads));
//   RETURN_IF_ERROR(limit.Set(0.3));
//   RETURN_IF_ERROR(limit.Remove());
//
// A limit outlives whoever set it. So its period is one that nobody else uses: ours is known by
// that, and only ours is ever removed, also by another process long after (Find, then Remove). What
// the limit was before is in the record.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace ramferry {

class CpuLimit {
 public:
  // Microseconds: about ten milliseconds, so that a throttled guest still answers.
  static constexpr int64_t kPeriod = 10'007;

  // The cgroups that hold these threads. NotFound, with the reason: some hold other processes or
  // other cgroups too, or there is no cgroup v2 with a CPU controller there. `root` and `proc` are
  // other than /sys/fs/cgroup and /proc in tests only.
  [[nodiscard]] static absl::StatusOr<CpuLimit> Find(pid_t pid, const std::vector<pid_t>& threads,
                                                     const std::string& root = "/sys/fs/cgroup",
                                                     const std::string& proc = "/proc");
  // What record() gave. Groups that are gone by now are left out.
  [[nodiscard]] static CpuLimit FromRecord(const nlohmann::json& record);
  [[nodiscard]] nlohmann::json record() const;
  [[nodiscard]] bool empty() const { return groups_.empty(); }

  // Each thread gets `share` of one CPU's time.
  [[nodiscard]] absl::Status Set(double share) const;
  // Where our limit is in force, the one from before comes back.
  [[nodiscard]] absl::Status Remove() const;

 private:
  struct Group {
    std::string file;     // its cpu.max
    std::string before;   // what that held
    int64_t threads = 0;  // virtual CPUs in it
  };
  std::vector<Group> groups_;
};

}  // namespace ramferry
