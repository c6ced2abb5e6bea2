// The journal: what is written is read again, what cannot be written leaves what was there, and
// what is no entry is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "base/status.h"
#include "engine/journal.h"
#include "tests/unit/engine_scratch.h"
#include "tests/unit/no_descriptors.h"

namespace ramferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

JournalEntry Sample() {
  return {.migration_id = "0b9c1d1e-5a1b-4c3d-8e9f-001122334455",
          .role = Role::kSource,
          .phase = Phase::kPausing,
          .guest = "web \"1\"\n\xc3\xa4",
          .locator = "qemu:/run/web 1.qmp",
          .peer = "host-b.example:4400",
          .undo = "{\"a\": [1, 2]}",
          .running = false,
          .pid = 4321,
          .pid_started = 9876543210};
}

std::vector<std::string> FilesIn(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(directory)) {
    names.push_back(file.path().filename());
  }
  return names;
}

class JournalTest : public ::testing::Test {
 protected:
  ScratchDirectory scratch_;
  Journal journal_ = *Journal::Open(scratch_.path() + "/state");
};

TEST(JournalCorpus, fuzzer_begins_from_a_good_entry_of_every_phase) {
  int good = 0;
  for (const auto& file : std::filesystem::directory_iterator(RAMFERRY_CORPUS "/journal")) {
    std::ifstream stream(file.path());
    std::stringstream text;
    text << stream.rdbuf();
    const auto entry = ParseJournalEntry(text.str());
    const std::string name = file.path().filename();
    EXPECT_EQ(entry.ok(), !name.starts_with("refused")) << name << entry.status();
    if (entry.ok()) {
      ++good;
      EXPECT_EQ(NameOf(entry->phase), name);
    }
  }
  EXPECT_EQ(good, static_cast<int>(Phase::kReleased) + 1);
}

TEST_F(JournalTest, an_entry_that_cannot_be_read_now_is_not_one_that_is_not_there) {
  JournalEntry entry = Sample();
  ASSERT_TRUE(journal_.Write(entry).ok());
  absl::Status status;
  {
    const NoDescriptors none;
    status = journal_.Read(entry.migration_id, entry.role).status();
    StampWithThisProcess(entry);
  }
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(absl::IsNotFound(status)) << status;
  EXPECT_TRUE(WriterLives(entry));
}

TEST_F(JournalTest, every_field_and_every_phase_round_trips) {
  for (int phase = 0; phase <= static_cast<int>(Phase::kReleased); ++phase) {
    JournalEntry entry = Sample();
    entry.phase = static_cast<Phase>(phase);
    entry.role = entry.phase < Phase::kStarting ? Role::kSource : Role::kDestination;
    entry.running = phase % 2 == 0;
    ASSERT_TRUE(journal_.Write(entry).ok());
    const auto read = journal_.Read(entry.migration_id, entry.role);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, entry) << NameOf(entry.phase);
  }
}

// Whoever can put an entry there can have a guest discarded, or run twice.
TEST_F(JournalTest, a_directory_that_others_can_write_to_is_refused) {
  for (const mode_t mode : {0770, 0707, 0777}) {
    ASSERT_EQ(::chmod(journal_.directory().c_str(), mode), 0);
    const auto opened = Journal::Open(journal_.directory());
    EXPECT_TRUE(absl::IsFailedPrecondition(opened.status())) << opened.status();
    EXPECT_THAT(std::string(opened.status().message()),
                testing::HasSubstr("chmod 700 " + journal_.directory()));
  }
  ASSERT_EQ(::chmod(journal_.directory().c_str(), 0755), 0);
  EXPECT_TRUE(Journal::Open(journal_.directory()).ok());
}

TEST_F(JournalTest, the_directory_is_for_its_owner_only) {
  struct stat status {};
  ASSERT_EQ(::stat(journal_.directory().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0700U);
}

TEST_F(JournalTest, a_later_entry_replaces_the_earlier_one_and_leaves_no_other_file) {
  JournalEntry entry = Sample();
  ASSERT_TRUE(journal_.Write(entry).ok());
  entry.phase = Phase::kHandingOver;
  ASSERT_TRUE(journal_.Write(entry).ok());
  EXPECT_EQ(journal_.Read(entry.migration_id, Role::kSource)->phase, Phase::kHandingOver);
  EXPECT_THAT(FilesIn(journal_.directory()), ElementsAre(entry.migration_id + ".source.json"));
}

TEST_F(JournalTest, both_ends_of_a_migration_can_live_in_one_directory) {
  JournalEntry source = Sample();
  JournalEntry destination = Sample();
  destination.role = Role::kDestination;
  destination.phase = Phase::kHolding;
  ASSERT_TRUE(journal_.Write(source).ok());
  ASSERT_TRUE(journal_.Write(destination).ok());
  const auto all = journal_.ReadAll();
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_THAT(all->entries, UnorderedElementsAre(source, destination));
  ASSERT_TRUE(journal_.Remove(source.migration_id, Role::kSource).ok());
  EXPECT_TRUE(absl::IsNotFound(journal_.Read(source.migration_id, Role::kSource).status()));
  EXPECT_TRUE(journal_.Read(source.migration_id, Role::kDestination).ok());
  EXPECT_TRUE(journal_.Remove(source.migration_id, Role::kSource).ok()) << "twice is no error";
}

TEST_F(JournalTest, garbage_is_refused_with_the_name_of_its_file) {
  const JournalEntry entry = Sample();
  const std::string good = FormatJournalEntry(entry);
  const auto replaced = [&good](const std::string& what, const std::string& by) {
    std::string text = good;
    const size_t at = text.find(what);
    EXPECT_NE(at, std::string::npos) << what;
    return text.replace(at, what.size(), by);
  };
  const std::map<std::string, std::string> bad = {
      {"empty", ""},
      {"cut short", good.substr(0, good.size() / 2)},
      {"no object", "[1, 2]"},
      {"not JSON", "\x7f\x45\x4c\x46\x00\xff"},
      {"a newer format", replaced("\"format\": 1", "\"format\": 2")},
      {"a phase that nobody knows", replaced("\"pausing\"", "\"sleeping\"")},
      {"a phase of the other role", replaced("\"pausing\"", "\"holding\"")},
      {"a role that nobody knows", replaced("\"source\"", "\"witness\"")},
      {"a number for a name", replaced("\"qemu:/run/web 1.qmp\"", "17")},
      {"a name for a number", replaced("4321", "\"4321\"")},
      {"a fraction for a pid", replaced("4321", "4321.5")},
      {"no running", replaced("\"running\"", "\"walking\"")},
  };
  const std::string path = journal_.directory() + "/" + entry.migration_id + ".source.json";
  for (const auto& [what, text] : bad) {
    std::ofstream(path, std::ios::trunc) << text;
    const auto read = journal_.Read(entry.migration_id, Role::kSource);
    EXPECT_TRUE(absl::IsInvalidArgument(read.status())) << what << ": " << read.status();
    EXPECT_THAT(Message(read.status()), HasSubstr(path)) << what;
    const auto all = journal_.ReadAll();
    ASSERT_TRUE(all.ok()) << what << ": " << all.status();
    ASSERT_EQ(all->damaged.size(), 1U) << what;
    EXPECT_EQ(Describe(all->damaged.front()), Message(read.status())) << what;
    EXPECT_EQ(all->damaged.front().migration_id, entry.migration_id) << what;
  }
}

TEST_F(JournalTest, a_damaged_entry_does_not_hide_the_others) {
  JournalEntry good = Sample();
  ASSERT_TRUE(journal_.Write(good).ok());
  std::ofstream(journal_.directory() + "/1.source.json") << std::string(300, '\0');
  std::filesystem::create_directory(journal_.directory() + "/2.destination.json");
  const auto all = journal_.ReadAll();
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_THAT(all->entries, ElementsAre(good));
  EXPECT_EQ(all->damaged.size(), 2U);
  EXPECT_FALSE(all->empty());
}

// So that nobody has to guess which guest it is about.
TEST_F(JournalTest, what_a_damaged_entry_still_says_is_told) {
  JournalEntry entry = Sample();
  entry.guest = "web1";
  const std::string whole = FormatJournalEntry(entry);
  std::string newer = whole;
  newer.replace(newer.find("\"format\": 1"), 11, "\"format\": 9");
  const std::string cut = whole.substr(0, whole.find("\"peer\""));
  const std::string cut_in_its_locator = whole.substr(0, whole.find("1.qmp"));
  const std::string path = journal_.directory() + "/" + entry.migration_id + ".source.json";
  for (const auto& [text, locator, phase] : {std::tuple{newer, entry.locator, "pausing"},
                                             {cut, entry.locator, ""},
                                             {cut_in_its_locator, std::string(), ""}}) {
    std::ofstream(path, std::ios::trunc) << text;
    const auto all = journal_.ReadAll();
    ASSERT_TRUE(all.ok()) << all.status();
    ASSERT_EQ(all->damaged.size(), 1U);
    EXPECT_EQ(all->damaged.front().guest, "web1");
    EXPECT_EQ(all->damaged.front().locator, locator);
    EXPECT_EQ(all->damaged.front().phase, phase);
    EXPECT_THAT(Describe(all->damaged.front()), HasSubstr("web1"));
  }
}

// It would be settled as another migration, or not at all.
TEST_F(JournalTest, an_entry_in_a_file_of_another_name_is_damaged) {
  const JournalEntry entry = Sample();
  for (const char* name : {"another.source.json", "another.destination.json"}) {
    const std::string path = journal_.directory() + "/" + name;
    std::ofstream(path) << FormatJournalEntry(entry);
    const auto all = journal_.ReadAll();
    ASSERT_TRUE(all.ok()) << all.status();
    EXPECT_TRUE(all->entries.empty());
    ASSERT_EQ(all->damaged.size(), 1U);
    EXPECT_THAT(Describe(all->damaged.front()), HasSubstr(entry.migration_id));
    std::filesystem::remove(path);
  }
}

TEST_F(JournalTest, a_journal_that_cannot_be_read_now_is_an_error_and_not_empty) {
  ASSERT_TRUE(journal_.Write(Sample()).ok());
  const NoDescriptors none;
  EXPECT_FALSE(journal_.ReadAll().ok());
}

TEST_F(JournalTest, an_id_cannot_lead_out_of_the_directory) {
  JournalEntry entry = Sample();
  for (const char* id : {"", "../x", "a/b"}) {
    entry.migration_id = id;
    EXPECT_TRUE(absl::IsInvalidArgument(journal_.Write(entry))) << id;
  }
  EXPECT_THAT(FilesIn(scratch_.path()), ElementsAre("state"));
}

TEST_F(JournalTest, a_directory_that_cannot_be_made_is_an_error_that_says_so) {
  std::ofstream(scratch_.path() + "/file") << "x";
  const auto journal = Journal::Open(scratch_.path() + "/file/state");
  EXPECT_THAT(Message(journal.status()), HasSubstr(scratch_.path() + "/file/state"));
}

// A file-size limit is what a test can have of a full disk without a mount: write(2) takes less, or
// nothing. In a process of its own, as the limit holds for all of it.
TEST_F(JournalTest, a_write_that_does_not_fit_is_an_error_and_leaves_the_old_entry) {
  JournalEntry entry = Sample();
  ASSERT_TRUE(journal_.Write(entry).ok());
  for (const rlim_t limit : {rlim_t{0}, rlim_t{100}}) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit most{limit, limit};
      if (::setrlimit(RLIMIT_FSIZE, &most) != 0) ::_exit(2);
      entry.phase = Phase::kHandingOver;
      const absl::Status status = journal_.Write(entry);
      const bool named = Message(status).find(journal_.directory()) != std::string::npos;
      ::_exit(!status.ok() && named ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "limit " << limit;
    EXPECT_EQ(*journal_.Read(entry.migration_id, Role::kSource), entry);
    EXPECT_EQ(FilesIn(journal_.directory()).size(), 1U) << "a half-written file was left";
  }
}

TEST_F(JournalTest, a_half_written_successor_of_a_killed_writer_is_not_taken_for_an_entry) {
  const JournalEntry entry = Sample();
  ASSERT_TRUE(journal_.Write(entry).ok());
  std::ofstream(journal_.directory() + "/" + entry.migration_id + ".source.json.next") << "{\"for";
  const auto all = journal_.ReadAll();
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_THAT(all->entries, ElementsAre(entry));
  EXPECT_TRUE(all->damaged.empty());
  EXPECT_TRUE(journal_.Write(entry).ok());
}

TEST(JournalWriter, this_process_lives_and_a_reused_pid_does_not_pass_for_it) {
  JournalEntry entry = Sample();
  StampWithThisProcess(entry);
  EXPECT_EQ(entry.pid, ::getpid());
  EXPECT_TRUE(WriterLives(entry));
  --entry.pid_started;  // the same pid, started at another time
  EXPECT_FALSE(WriterLives(entry));
  entry.pid_started = 0;
  EXPECT_FALSE(WriterLives(entry));
}

TEST(JournalWriter, an_ended_process_does_not_live) {
  JournalEntry entry = Sample();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    StampWithThisProcess(entry);
    const bool written = ::write(ends[1], &entry.pid_started, sizeof entry.pid_started) > 0;
    char go = 0;
    ::close(ends[1]);
    ::_exit(written && go == 0 ? 0 : 1);
  }
  ASSERT_EQ(::read(ends[0], &entry.pid_started, sizeof entry.pid_started),
            static_cast<ssize_t>(sizeof entry.pid_started));
  entry.pid = child;
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_NE(entry.pid_started, 0);
  EXPECT_FALSE(WriterLives(entry));
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace ramferry
