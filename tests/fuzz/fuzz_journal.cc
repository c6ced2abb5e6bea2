// Any text is a journal entry or an error, and an entry is the same after another trip to the disk.
// What can still be read of an entry that was cut short is what it said.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include "engine/journal.h"

namespace {

using namespace ramferry;

void MustBeOf(const JournalEntry& entry, const DamagedEntry& salvaged) {
  for (const auto& [field, read] : {std::pair(&entry.guest, &salvaged.guest),
                                    {&entry.locator, &salvaged.locator},
                                    {&entry.peer, &salvaged.peer}}) {
    if (!read->empty() && *read != *field) std::abort();
  }
  if (!salvaged.phase.empty() && salvaged.phase != NameOf(entry.phase)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto entry = ParseJournalEntry(text);
  const DamagedEntry salvaged = Salvage(text);
  if (!entry.ok()) {
    if (entry.status().message().empty()) std::abort();
    return 0;
  }
  MustBeOf(*entry, salvaged);
  const std::string whole = FormatJournalEntry(*entry);
  MustBeOf(*entry, Salvage(whole.substr(0, whole.size() * data[size / 2] / 256)));
  const auto again = ParseJournalEntry(whole);
  if (!again.ok() || !(*again == *entry)) std::abort();
  return 0;
}
