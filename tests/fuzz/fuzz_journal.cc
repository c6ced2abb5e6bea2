// Any text is a journal entry or an error, and an entry is the same after another trip to the disk.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "engine/journal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto entry = ramferry::ParseJournalEntry(text);
  if (!entry.ok()) {
    if (entry.status().message().empty()) std::abort();
    return 0;
  }
  const auto again = ramferry::ParseJournalEntry(ramferry::FormatJournalEntry(*entry));
  if (!again.ok() || !(*again == *entry)) std::abort();
  return 0;
}
