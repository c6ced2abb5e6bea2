#include "engine/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/private_directory.h"
#include "base/process_identity.h"
#include "base/status.h"
#include "base/text_file.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

using nlohmann::json;

constexpr std::array kPhaseNames = {"measuring", "tracking",   "pausing",   "handing-over",
                                    "gone",      "returned",   "starting",  "reserved",
                                    "holding",   "activating", "activated", "released"};
constexpr int kFormat = 1;

std::optional<Phase> PhaseNamed(const std::string& name) {
  for (size_t i = 0; i < kPhaseNames.size(); ++i) {
    if (name == kPhaseNames[i]) return static_cast<Phase>(i);
  }
  return std::nullopt;
}

absl::Status SyncDirectory(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) {
    return ErrnoStatus(errno, "cannot sync the journal directory " + path);
  }
  return absl::OkStatus();
}

// Read once, by Journal::Open: later there may be no descriptor left for it.
const ProcessIdentity& ThisProcess() {
  static const ProcessIdentity self = IdentityOf(::getpid());
  return self;
}

// The entry in the text of a file of that name.
absl::StatusOr<JournalEntry> ParseNamed(const std::string& text, const std::string& migration_id,
                                        Role role) {
  auto entry = ParseJournalEntry(text);
  if (entry.ok() && (entry->migration_id != migration_id || entry->role != role)) {
    return absl::InvalidArgumentError(
        fmt::format("it is the {}'s entry of migration {}, in a file of another name",
                    NameOf(entry->role), entry->migration_id));
  }
  return entry;
}

// `text`: as much as could be read.
DamagedEntry Damaged(std::string path, std::string migration_id, Role role, std::string problem,
                     const std::string& text) {
  DamagedEntry damaged = Salvage(text);
  damaged.path = std::move(path);
  damaged.migration_id = std::move(migration_id);
  damaged.role = role;
  damaged.problem = std::move(problem);
  return damaged;
}

// For tests of what a crash leads to: with RAMFERRY_TEST_STOP=before:PHASE or after:PHASE in its
// environment this process stops itself (SIGSTOP), once, at that write. Inert otherwise.
void StopForTest(const char* when, Phase phase) {
  static std::atomic<bool> stopped = false;
  const char* wanted = std::getenv("RAMFERRY_TEST_STOP");
  if (wanted == nullptr || fmt::format("{}:{}", when, NameOf(phase)) != wanted) return;
  if (!stopped.exchange(true)) ::raise(SIGSTOP);  // to this thread: it goes no further
}

}  // namespace

const char* NameOf(Role role) {
  return role == Role::kSource ? "source" : "destination";
}
const char* NameOf(Phase phase) {
  return kPhaseNames[static_cast<size_t>(phase)];
}

std::string FormatJournalEntry(const JournalEntry& entry) {
  return json{{"format", kFormat},
              {"migration_id", entry.migration_id},
              {"role", NameOf(entry.role)},
              {"phase", NameOf(entry.phase)},
              {"guest", entry.guest},
              {"locator", entry.locator},
              {"peer", entry.peer},
              {"server_name", entry.server_name},
              {"undo", entry.undo},
              {"running", entry.running},
              {"boot_id", entry.boot_id},
              {"pid", entry.pid},
              {"pid_started", entry.pid_started}}
             .dump(2, ' ', false, json::error_handler_t::replace) +
         "\n";
}

absl::StatusOr<JournalEntry> ParseJournalEntry(const std::string& text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return absl::InvalidArgumentError("it is not a JSON object");
  const auto string = [&object](const char* key, std::string& value) {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_string()) return false;
    value = found->get<std::string>();
    return true;
  };
  const auto number = [&object](const char* key, int64_t& value) {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_number_integer()) return false;
    value = found->get<int64_t>();
    return true;
  };
  JournalEntry entry;
  std::string role;
  std::string phase;
  int64_t format = 0;
  const auto running = object.find("running");
  if (!number("format", format) || !string("migration_id", entry.migration_id) ||
      !string("role", role) || !string("phase", phase) || !string("guest", entry.guest) ||
      !string("locator", entry.locator) || !string("peer", entry.peer) ||
      !string("server_name", entry.server_name) || !string("undo", entry.undo) ||
      !string("boot_id", entry.boot_id) || !number("pid", entry.pid) ||
      !number("pid_started", entry.pid_started) || running == object.end() ||
      !running->is_boolean()) {
    return absl::InvalidArgumentError("a field is missing or of the wrong type");
  }
  if (format != kFormat) {
    return absl::InvalidArgumentError(
        fmt::format("its format is {}, this ramferry knows {}", format, kFormat));
  }
  const auto known = PhaseNamed(phase);
  if (!known || (role != "source" && role != "destination") ||
      (role == "source") != (*known < Phase::kStarting)) {
    return absl::InvalidArgumentError(fmt::format("no {} is ever '{}'", role, phase));
  }
  entry.role = role == "source" ? Role::kSource : Role::kDestination;
  entry.phase = *known;
  entry.running = running->get<bool>();
  return entry;
}

DamagedEntry Salvage(const std::string& text) {
  DamagedEntry damaged;
  std::string key;
  const auto note = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth == 1 && event == json::parse_event_t::key) key = parsed.get<std::string>();
    if (depth != 1 || event != json::parse_event_t::value || !parsed.is_string()) return true;
    for (const auto& [name, field] :
         {std::pair("guest", &DamagedEntry::guest), std::pair("locator", &DamagedEntry::locator),
          std::pair("peer", &DamagedEntry::peer), std::pair("phase", &DamagedEntry::phase)}) {
      if (key == name) damaged.*field = parsed.get<std::string>();
    }
    return true;
  };
  (void)json::parse(text, note, /*allow_exceptions=*/false);
  return damaged;
}

std::string Describe(const DamagedEntry& damaged) {
  std::string about = "which guest it is about cannot be read";
  if (!damaged.guest.empty() || !damaged.locator.empty()) {
    about = fmt::format("it is about guest {} at {}", damaged.guest.empty() ? "?" : damaged.guest,
                        damaged.locator.empty() ? "?" : damaged.locator);
  }
  if (!damaged.peer.empty()) about += fmt::format(", the other host is {}", damaged.peer);
  if (!damaged.phase.empty()) about += fmt::format(", its phase was {}", damaged.phase);
  return fmt::format(
      "the journal entry {} is damaged: {}; {}. Nothing is done about that migration while it is "
      "there: see on both hosts where its guest runs, then remove the file (docs/handover.md)",
      damaged.path, damaged.problem, about);
}

absl::StatusOr<Journal> Journal::Open(std::string directory) {
  const absl::Status made = EnsurePrivateDirectory(directory, "state directory");
  if (!made.ok()) {
    return absl::Status(made.code(), Message(made) + " (or choose another with --state-dir)");
  }
  // Without it nobody could tell later whether this process lives.
  if (ThisProcess().pid == 0) {
    return absl::UnavailableError("cannot read /proc/self/stat: is /proc mounted?");
  }
  if (::access(directory.c_str(), W_OK | X_OK) != 0) {
    return ErrnoStatus(errno, "cannot write to the state directory " + directory);
  }
  return Journal(std::move(directory));
}

std::string Journal::PathOf(const std::string& migration_id, Role role) const {
  return fmt::format("{}/{}.{}.json", directory_, migration_id, NameOf(role));
}

absl::Status Journal::Write(const JournalEntry& entry) const {
  if (entry.migration_id.empty() || entry.migration_id.find('/') != std::string::npos) {
    return absl::InvalidArgumentError("a migration id names a file: it cannot hold '/'");
  }
  StopForTest("before", entry.phase);
  const std::string path = PathOf(entry.migration_id, entry.role);
  const std::string next = path + ".next";
  const std::string text = FormatJournalEntry(entry);
  UniqueFd fd(::open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus(errno, "cannot write the journal " + next);
  const ssize_t written = ::write(fd.get(), text.data(), text.size());
  if (written != static_cast<ssize_t>(text.size()) || ::fdatasync(fd.get()) != 0) {
    const int error = written >= 0 && written < static_cast<ssize_t>(text.size()) ? ENOSPC : errno;
    ::unlink(next.c_str());
    return ErrnoStatus(error, "cannot write the journal " + path);
  }
  if (::rename(next.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(next.c_str());
    return ErrnoStatus(error, "cannot write the journal " + path);
  }
  absl::Status synced = SyncDirectory(directory_);
  StopForTest("after", entry.phase);
  return synced;
}

absl::Status Journal::Remove(const std::string& migration_id, Role role) const {
  const std::string path = PathOf(migration_id, role);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, "cannot remove the journal entry " + path);
  }
  return SyncDirectory(directory_);
}

absl::StatusOr<JournalEntry> Journal::Read(const std::string& migration_id, Role role) const {
  const std::string path = PathOf(migration_id, role);
  // An entry that cannot be read now (too many files are open, say) is not one that is not there.
  ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, "the journal entry"));
  auto entry = ParseNamed(text, migration_id, role);
  if (entry.ok()) return entry;
  return absl::InvalidArgumentError(
      Describe(Damaged(path, migration_id, role, Message(entry.status()), text)));
}

absl::StatusOr<JournalContents> Journal::ReadAll() const {
  JournalContents contents;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(directory_, error)) {
    const std::string name = file.path().filename();
    for (const Role role : {Role::kSource, Role::kDestination}) {
      const std::string ending = fmt::format(".{}.json", NameOf(role));
      if (!name.ends_with(ending)) continue;
      const std::string id = name.substr(0, name.size() - ending.size());
      const auto text = ReadTextFile(file.path(), "the journal entry");
      if (absl::IsNotFound(text.status())) continue;  // its migration has ended just now
      if (absl::IsResourceExhausted(text.status())) return text.status();
      auto entry = text.ok() ? ParseNamed(*text, id, role) : text.status();
      if (entry.ok()) {
        contents.entries.push_back(*std::move(entry));
      } else {
        contents.damaged.push_back(
            Damaged(file.path(), id, role, Message(entry.status()), text.ok() ? *text : ""));
      }
    }
  }
  if (error) return ErrnoStatus(error.value(), "cannot read the state directory " + directory_);
  return contents;
}

absl::StatusOr<UniqueFd> Journal::Lock() const {
  UniqueFd fd(::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  while (fd.valid() && ::flock(fd.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "cannot lock the state directory " + directory_);
  }
  if (!fd.valid()) return ErrnoStatus(errno, "cannot open the state directory " + directory_);
  return fd;
}

void StampWithThisProcess(JournalEntry& entry) {
  const ProcessIdentity& self = ThisProcess();
  entry.boot_id = self.boot_id;
  entry.pid = self.pid;
  entry.pid_started = self.started;
}

bool WriterLives(const JournalEntry& entry) {
  return Lives({.boot_id = entry.boot_id, .pid = entry.pid, .started = entry.pid_started});
}

}  // namespace ramferry
