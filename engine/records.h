// What a destination knows of migrations that have ended: its journal, and in memory what could not
// be written there because the disk was full. As long as the process lives, the source so learns
// the truth at once, instead of when there is room again.
//
//   Records records(journal);
//   migration.Run(channel);
//   if (auto entry = migration.unwritten()) records.Remember(*std::move(entry));
//   ...
//   ASSIGN_OR_RETURN(JournalEntry entry, records.Find(id));   // a question of the source
//   RETURN_IF_ERROR(records.Forget(id));                      // it has confirmed
//
// Thread-safe. The journal must outlive it.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/journal.h"

namespace ramferry {

class Records {
 public:
  explicit Records(const Journal& journal) : journal_(journal) {}

  // The last word about a migration, newer than what the journal says of it.
  void Remember(JournalEntry entry);
  // The last word: what is remembered (it tries once more to write that down), else the journal's.
  // NotFound: there is no record of it.
  [[nodiscard]] absl::StatusOr<JournalEntry> Find(const std::string& migration_id);
  // For good, on disk and in memory.
  [[nodiscard]] absl::Status Forget(const std::string& migration_id);
  // Tries once more to write down what is remembered; whether the journal now says it all.
  bool WriteDown();

 private:
  const Journal& journal_;
  std::mutex mutex_;
  std::map<std::string, JournalEntry> unwritten_;  // by migration id
};

}  // namespace ramferry
