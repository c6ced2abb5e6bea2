#include "cli/rights.h"

#include <linux/capability.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "base/status.h"
#include "base/text_file.h"

namespace ramferry {
absl::StatusOr<ProcessRights> OwnRights() {
  ProcessRights rights{.root = ::geteuid() == 0};
  ASSIGN_OR_RETURN(const std::string status,
                   ReadTextFile("/proc/self/status", "this process's capabilities"));
  constexpr std::string_view kEffective = "\nCapEff:";
  const size_t at = status.find(kEffective);
  if (at == std::string::npos) {
    return absl::InternalError("the kernel does not tell the capabilities of this process");
  }
  rights.capabilities = std::strtoull(status.c_str() + at + kEffective.size(), nullptr, 16);
  const auto scope = ReadTextFile("/proc/sys/kernel/yama/ptrace_scope", "Yama's setting");
  if (scope.ok()) rights.ptrace_scope = std::atoi(scope->c_str());
  return rights;
}

RightsFinding JudgeRights(const ProcessRights& rights) {
  const auto may = [&rights](int capability) {
    return (rights.capabilities >> capability & 1) != 0;
  };
  if (rights.ptrace_scope >= 3) {
    return {.status = absl::PermissionDeniedError(
                "kernel.yama.ptrace_scope is 3: no guest can leave this host, whoever asks; "
                "set it to 2 or less in /etc/sysctl.d and boot again")};
  }
  if (!may(CAP_CHECKPOINT_RESTORE) && !may(CAP_SYS_ADMIN)) {
    return {.status = absl::PermissionDeniedError(
                "neither root nor CAP_CHECKPOINT_RESTORE: a guest's memory cannot be opened; run "
                "as root, or with the capabilities in docs/security.md, \"Rights\"")};
  }
  if (rights.ptrace_scope >= 1 && !may(CAP_SYS_PTRACE)) {
    return {.good = "CAP_CHECKPOINT_RESTORE",
            .limit =
                "guests can only come here: while kernel.yama.ptrace_scope is not 0, moving "
                "one away needs CAP_SYS_PTRACE"};
  }
  if (rights.root && may(CAP_SYS_PTRACE)) return {.good = "root"};
  if (!may(CAP_SYS_PTRACE) || !may(CAP_DAC_READ_SEARCH)) {
    return {.good = "CAP_CHECKPOINT_RESTORE",
            .limit =
                "only guests whose QEMU runs as this user; those of others need "
                "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, too (docs/security.md)"};
  }
  return {.good = "CAP_CHECKPOINT_RESTORE, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH"};
}

}  // namespace ramferry
