// What a full disk kept out of the journal is known all the same, while the process lives.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/status.h"
#include "engine/records.h"
#include "tests/unit/engine_scratch.h"

namespace ramferry {
namespace {

class RecordsTest : public testing::Test {
 protected:
  JournalEntry Entry(Phase phase) {
    return {.migration_id = "0b9c", .role = Role::kDestination, .phase = phase, .guest = "web1"};
  }
  Phase OnDisk() { return journal_.Read("0b9c", Role::kDestination)->phase; }
  // Journal::Write makes its new file there: a directory of that name is a disk without room.
  void Fill() { std::filesystem::create_directory(next_); }
  void Free() { std::filesystem::remove(next_); }

  ScratchDirectory scratch_;
  const Journal journal_ = *Journal::Open(scratch_.path() + "/state");
  const std::string next_ = journal_.directory() + "/0b9c.destination.json.next";
  Records records_{journal_};
};

TEST_F(RecordsTest, word_that_a_full_disk_refused_is_told_and_written_when_there_is_room) {
  ASSERT_TRUE(journal_.Write(Entry(Phase::kActivating)).ok());
  Fill();
  records_.Remember(Entry(Phase::kActivated));
  ASSERT_TRUE(records_.Find("0b9c").ok());
  EXPECT_EQ(records_.Find("0b9c")->phase, Phase::kActivated);
  EXPECT_EQ(OnDisk(), Phase::kActivating);
  EXPECT_FALSE(records_.WriteDown());
  Free();
  EXPECT_TRUE(records_.WriteDown());
  EXPECT_EQ(OnDisk(), Phase::kActivated);
}

TEST_F(RecordsTest, question_writes_it_down_when_there_is_room) {
  records_.Remember(Entry(Phase::kReleased));
  EXPECT_EQ(records_.Find("0b9c")->phase, Phase::kReleased);
  EXPECT_EQ(OnDisk(), Phase::kReleased);
}

TEST_F(RecordsTest, what_was_confirmed_is_forgotten_on_a_full_disk_too) {
  ASSERT_TRUE(journal_.Write(Entry(Phase::kHolding)).ok());
  Fill();
  records_.Remember(Entry(Phase::kReleased));
  EXPECT_TRUE(records_.Forget("0b9c").ok());
  EXPECT_TRUE(absl::IsNotFound(records_.Find("0b9c").status()));
}

TEST_F(RecordsTest, journal_speaks_where_nothing_is_remembered) {
  EXPECT_TRUE(absl::IsNotFound(records_.Find("0b9c").status()));
  ASSERT_TRUE(journal_.Write(Entry(Phase::kHolding)).ok());
  EXPECT_EQ(records_.Find("0b9c")->phase, Phase::kHolding);
}

}  // namespace
}  // namespace ramferry
