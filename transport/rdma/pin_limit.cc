#include "transport/rdma/pin_limit.h"

#include <linux/capability.h>
#include <sys/resource.h>

#include <fstream>

#include "fmt/format.h"

namespace ramferry::rdma {
namespace {

bool MayPinWithoutLimit() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("CapEff:", 0) == 0) {
      return (std::stoull(line.substr(7), nullptr, 16) >> CAP_IPC_LOCK & 1) != 0;
    }
  }
  return false;
}

}  // namespace

std::optional<ByteCount> PinLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
      MayPinWithoutLimit()) {
    return std::nullopt;
  }
  return ByteCount(limit.rlim_cur);
}

std::string DescribePinLimit() {
  const auto limit = PinLimit();
  if (!limit) return "memory pinning is not limited";
  return fmt::format("RLIMIT_MEMLOCK is {} KiB", limit->value() >> 10);
}

}  // namespace ramferry::rdma
