// Sets of the kernel's CPU numbers, as it writes them ("0-3,8"), and threads that are bound to
// them.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ramferry {

// Ascending, no number twice. Empty means "no set given" wherever an interface takes one.
using CpuSet = std::vector<int>;

// Highest CPU number plus one that is believed; the kernel's own limit is 8192 (x86-64).
inline constexpr int kMaxCpus = 65536;

// "0-3,8" as the kernel writes and taskset(1) takes it. InvalidArgument names what is wrong.
[[nodiscard]] absl::StatusOr<CpuSet> ParseCpuSet(std::string_view text);
[[nodiscard]] std::string FormatCpuSet(const CpuSet& cpus);
[[nodiscard]] bool Contains(const CpuSet& cpus, int cpu);

// Where a thread may run (sched_getaffinity(2)); 0: the calling one. Empty: the thread is gone.
[[nodiscard]] CpuSet AffinityOf(pid_t thread);

// Binds the calling thread. An empty set changes nothing.
[[nodiscard]] absl::Status BindThisThread(const CpuSet& cpus);

// Names the calling thread "KIND-INDEX", for ps -L and /proc/PID/task/*/comm.
void NameThisThread(const char* kind, size_t index);

// Binds the calling thread for a while, so that memory it touches first is near those CPUs. Where
// the kernel refuses, nothing happens: it is a matter of speed only.
class BoundForAWhile {
 public:
  explicit BoundForAWhile(const CpuSet& cpus);
  ~BoundForAWhile();
  BoundForAWhile(const BoundForAWhile&) = delete;
  BoundForAWhile& operator=(const BoundForAWhile&) = delete;

 private:
  CpuSet before_;
};

}  // namespace ramferry
