// Any text in place of /proc/PID/maps: lines that are none are left out, and looking for a file in
// what is left does no harm.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "hypervisor-glue/qemu/process_memory.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ramferry;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto maps = ParseMaps(text);
  for (const ProcessMapping& mapping : maps) {
    if (mapping.path.find('\n') != std::string::npos) std::abort();
  }
  for (const char* path : {"/dev/shm/ram", "/dev/hugepages"}) {
    const auto found = FindMappedFile(::getpid(), maps, path, "ram", 1 << 20, false);
    if (!found.ok() && found.status().message().empty()) std::abort();
  }
  return 0;
}
