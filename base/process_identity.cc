#include "base/process_identity.h"

#include <optional>
#include <sstream>
#include <string>

#include "base/host_identity.h"
#include "base/text_file.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// All zero: there is no such process, or it is a zombie. Nothing: that cannot be told now, for want
// of descriptors, say.
std::optional<ProcessIdentity> Look(int64_t pid) {
  if (pid <= 0) return ProcessIdentity{};
  const auto text = ReadTextFile(fmt::format("/proc/{}/stat", pid), "");
  if (absl::IsNotFound(text.status())) return ProcessIdentity{};
  const std::string boot_id = HostBootId();
  if (!text.ok() || boot_id.empty()) return std::nullopt;
  const std::string& line = *text;
  const size_t name_end = line.rfind(')');  // the name may hold anything
  if (name_end == std::string::npos) return ProcessIdentity{};
  std::istringstream fields(line.substr(name_end + 1));
  std::string field;
  fields >> field;  // the third: the state
  if (field == "Z" || field == "X") return ProcessIdentity{};
  for (int number = 4; number < 22; ++number) fields >> field;
  int64_t started = 0;
  if (!(fields >> started)) return ProcessIdentity{};
  return ProcessIdentity{.boot_id = boot_id, .pid = pid, .started = started};
}

}  // namespace

ProcessIdentity IdentityOf(int64_t pid) {
  return Look(pid).value_or(ProcessIdentity{});
}

bool Lives(const ProcessIdentity& process) {
  if (process.pid <= 0) return false;
  const auto now = Look(process.pid);
  if (now) return *now == process;
  const std::string boot_id = HostBootId();
  return boot_id.empty() || boot_id == process.boot_id;
}

}  // namespace ramferry
