#include "base/process_identity.h"

#include <fstream>
#include <sstream>

#include "base/host_identity.h"

namespace ramferry {

ProcessIdentity IdentityOf(int64_t pid) {
  if (pid <= 0) return {};
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return {};
  const size_t name_end = line.rfind(')');  // the name may hold anything
  if (name_end == std::string::npos) return {};
  std::istringstream fields(line.substr(name_end + 1));
  std::string field;
  fields >> field;  // the third: the state
  if (field == "Z" || field == "X") return {};
  for (int number = 4; number < 22; ++number) fields >> field;
  int64_t started = 0;
  if (!(fields >> started)) return {};
  return {.boot_id = HostBootId(), .pid = pid, .started = started};
}

bool Lives(const ProcessIdentity& process) {
  return process.pid > 0 && IdentityOf(process.pid) == process;
}

}  // namespace ramferry
