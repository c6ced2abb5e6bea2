#include "engine/records.h"

#include <utility>

#include "base/status.h"

namespace ramferry {

void Records::Remember(JournalEntry entry) {
  const std::lock_guard lock(mutex_);
  unwritten_.insert_or_assign(entry.migration_id, std::move(entry));
}

absl::StatusOr<JournalEntry> Records::Find(const std::string& migration_id) {
  const std::lock_guard lock(mutex_);
  const auto found = unwritten_.find(migration_id);
  if (found == unwritten_.end()) return journal_.Read(migration_id, Role::kDestination);
  JournalEntry entry = found->second;
  if (journal_.Write(entry).ok()) unwritten_.erase(found);
  return entry;
}

absl::Status Records::Forget(const std::string& migration_id) {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(journal_.Remove(migration_id, Role::kDestination));
  unwritten_.erase(migration_id);
  return absl::OkStatus();
}

bool Records::WriteDown() {
  const std::lock_guard lock(mutex_);
  std::erase_if(unwritten_, [this](const auto& item) { return journal_.Write(item.second).ok(); });
  return unwritten_.empty();
}

}  // namespace ramferry
