// Any text is a configuration or an error. What is accepted is within its limits, and `ramferry
// config` prints a file that gives the same settings.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "cli/settings.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ramferry;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto settings = ParseSettings(text, "fuzz");
  if (!settings.ok()) {
    if (settings.status().message().empty()) std::abort();
    return 0;
  }
  if (!CheckSettings(*settings).ok()) std::abort();
  static_cast<void>(settings->migration_options());
  const std::string printed = FormatSettings(*settings);
  const auto again = ParseSettings(printed, "printed");
  if (!again.ok() || FormatSettings(*again) != printed) std::abort();
  return 0;
}
