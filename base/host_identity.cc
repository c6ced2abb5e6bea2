#include "base/host_identity.h"

#include <sys/utsname.h>

#include <fstream>
#include <mutex>

namespace ramferry {
namespace {

std::string FirstLineOf(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace

std::string HostBootId() {
  static std::mutex mutex;
  static std::string id;  // the same for ever, also when no descriptor is left to read it
  const std::lock_guard lock(mutex);
  if (id.empty()) id = FirstLineOf("/proc/sys/kernel/random/boot_id");
  return id;
}

std::string HostName() {
  utsname names{};
  return ::uname(&names) == 0 ? names.nodename : "";
}

// The kernel's own generator makes a new one with every read.
std::string NewUuid() {
  return FirstLineOf("/proc/sys/kernel/random/uuid");
}

}  // namespace ramferry
