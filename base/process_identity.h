// Which process, told apart from a later one that was given the same number, also after a reboot.
#pragma once

#include <cstdint>
#include <string>

namespace ramferry {

struct ProcessIdentity {
  std::string boot_id;  // of the kernel it runs under (HostBootId)
  int64_t pid = 0;      // 0: none
  int64_t started = 0;  // in clock ticks since boot: proc(5), /proc/PID/stat, field 22
  friend bool operator==(const ProcessIdentity&, const ProcessIdentity&) = default;
};

// Of a process that lives; all zero when there is none, or it cannot be told. A zombie has ended.
[[nodiscard]] ProcessIdentity IdentityOf(int64_t pid);

// Whether this very process still lives. Where that cannot be told now it is taken to: much is done
// to what a dead process left.
[[nodiscard]] bool Lives(const ProcessIdentity& process);

}  // namespace ramferry
