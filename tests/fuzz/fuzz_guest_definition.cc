// Any text is a guest definition or an error; one that is accepted can be started.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "hypervisor-glue/qemu/guest_definition.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto definition = ramferry::ParseGuestDefinition(text, "fuzz");
  if (!definition.ok()) {
    if (definition.status().message().empty()) std::abort();
    return 0;
  }
  if (definition->name.empty() || definition->name.find('/') != std::string::npos ||
      definition->argv.empty()) {
    std::abort();
  }
  const auto& argv = definition->argv;
  if (std::find(argv.begin(), argv.end(), "-incoming") != argv.end()) std::abort();
  return 0;
}
