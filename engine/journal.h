// What each side has written down about a migration before it acts, so that a killed ramferry, or
// the other side, can find out what became of the guest (docs/handover.md).
//
// One small JSON file a migration and role, replaced atomically and synced to the disk: after Write
// has returned OK, the entry survives a crash of this host.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace ramferry {

enum class Role { kSource, kDestination };

// How far a migration has come. What is on disk is always the step about to be taken.
enum class Phase {
  // source
  kMeasuring,    // dirty tracking is on, and nothing else: no migration (`ramferry wws`)
  kTracking,     // dirty tracking is on, the guest runs here
  kPausing,      // the guest is being stopped; QEMU's migration settings are changed
  kHandingOver,  // the ownership message leaves: from here the source never resumes by itself
  kGone,         // the destination runs it: what is left here is to be discarded
  kReturned,     // it is the source's again: what is left of the migration is to be undone
  // destination
  kStarting,    // a hypervisor is about to be started for it
  kReserved,    // memory and a waiting hypervisor are held
  kHolding,     // the image is whole, and not ours yet
  kActivating,  // the ownership message came; the guest is told to run
  kActivated,   // it runs here
  kReleased,    // it never ran here and never will
};

[[nodiscard]] const char* NameOf(Role role);
[[nodiscard]] const char* NameOf(Phase phase);

struct JournalEntry {
  std::string migration_id;  // UUID
  Role role = Role::kSource;
  Phase phase = Phase::kTracking;
  std::string guest;        // its name
  std::string locator;      // how to find it on this host, e.g. "qemu:/run/web1.qmp"
  std::string peer;         // the other host, as we reach it (source) or as it proved to be
  std::string server_name;  // source: what the peer's certificate must say; empty: the host in peer
  std::string undo;         // the glue's own record (SourceGuest::undo_record)
  bool running = true;      // the guest ran before the migration (or was paused by its owner)
  // The ramferry at work on it (base/process_identity.h); pid 0: nobody is any more.
  std::string boot_id;
  int64_t pid = 0;
  int64_t pid_started = 0;
  friend bool operator==(const JournalEntry&, const JournalEntry&) = default;
};

// Parses what Write wrote; InvalidArgument for anything else. Pure.
[[nodiscard]] absl::StatusOr<JournalEntry> ParseJournalEntry(const std::string& text);
[[nodiscard]] std::string FormatJournalEntry(const JournalEntry& entry);

// A file of the journal that is none of its entries any more: cut short, written by a newer
// ramferry, or of a disk that cannot be read. Whose guest it is about is not always known.
struct DamagedEntry {
  std::string path;
  std::string migration_id;  // by the file's name
  Role role = Role::kSource;
  std::string problem;
  // What can still be read of it; empty: nothing. A cut file says in its beginning what it said.
  std::string guest;
  std::string locator;
  std::string peer;
  std::string phase;
};

// What can still be read of the text of such a file; the rest stays empty. Pure.
[[nodiscard]] DamagedEntry Salvage(const std::string& text);
// What is wrong with it, what is known of it and what a person can do, in one line.
[[nodiscard]] std::string Describe(const DamagedEntry& damaged);

struct JournalContents {
  std::vector<JournalEntry> entries;
  std::vector<DamagedEntry> damaged;
  [[nodiscard]] bool empty() const { return entries.empty() && damaged.empty(); }
};

class Journal {
 public:
  // `directory` is made (mode 0700) when it is missing.
  [[nodiscard]] static absl::StatusOr<Journal> Open(std::string directory);

  [[nodiscard]] absl::Status Write(const JournalEntry& entry) const;
  // Forgets a migration that has ended, for good: after OK the entry does not come back with a
  // crash of this host. No error when there is no such entry.
  [[nodiscard]] absl::Status Remove(const std::string& migration_id, Role role) const;
  // NotFound when there is none; InvalidArgument, with its description, when it is damaged.
  [[nodiscard]] absl::StatusOr<JournalEntry> Read(const std::string& migration_id, Role role) const;
  // An error when it cannot be told now what there is (too many files are open, say).
  [[nodiscard]] absl::StatusOr<JournalContents> ReadAll() const;

  // Held while a dead ramferry's entry is settled, so that two processes do not settle it in two
  // ways. Waits for its turn; closing the descriptor (or dying) gives it back.
  [[nodiscard]] absl::StatusOr<UniqueFd> Lock() const;

  [[nodiscard]] const std::string& directory() const { return directory_; }

 private:
  explicit Journal(std::string directory) : directory_(std::move(directory)) {}
  [[nodiscard]] std::string PathOf(const std::string& migration_id, Role role) const;

  std::string directory_;
};

// This process, for JournalEntry::pid and pid_started.
void StampWithThisProcess(JournalEntry& entry);
// At a destination: nothing more is to be done there but to answer the source, if it asks.
[[nodiscard]] inline bool Settled(const JournalEntry& entry) {
  return entry.phase == Phase::kActivated || entry.phase == Phase::kReleased;
}
// Whether the process that wrote the entry is still there.
[[nodiscard]] bool WriterLives(const JournalEntry& entry);

}  // namespace ramferry
