// What the soft-dirty tracker promises: its bookkeeping with a process played by the test, on any
// kernel; and the whole of it with a real process, on kernels that have soft-dirty bits (the lab
// runs this program on Linux 6.1).
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/status.h"
#include "hypervisor-glue/tracking/memory_file.h"
#include "hypervisor-glue/tracking/soft_dirty_tracker.h"

namespace ramferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kPages = 10'000;  // more than are read at a time

// What one process's page tables say.
struct PlayedProcess {
  std::vector<uint64_t> entries = std::vector<uint64_t>(kPages);
  std::vector<std::string> calls;
};

class PlayedPages : public SoftDirtyPages {
 public:
  explicit PlayedPages(PlayedProcess& process) : process_(process) {}
  absl::Status Read(uint64_t address, std::span<uint64_t> entries) override {
    process_.calls.emplace_back("read");
    std::memcpy(entries.data(), &process_.entries[address / kPageBytes], entries.size_bytes());
    return absl::OkStatus();
  }
  absl::Status Clear() override {
    process_.calls.emplace_back("clear");
    for (uint64_t& entry : process_.entries) entry &= ~kSoftDirty;
    return absl::OkStatus();
  }

 private:
  PlayedProcess& process_;
};

PageRuns CollectAll(WriteTracker& tracker) {
  PageRuns runs;
  EXPECT_TRUE(tracker.Collect(0, {0, kPages}, runs).ok());
  return runs;
}

class SoftDirtyTest : public ::testing::Test {
 protected:
  SoftDirtyTest() {
    tracker_ = *SoftDirtyTracker::Create(std::make_unique<PlayedPages>(process_),
                                         {{0, kPages * kPageBytes, &file_}});
    Gather();
    CollectAll(*tracker_);
    process_.calls.clear();
  }
  void Gather() {
    const absl::Status status = tracker_->Gather();
    EXPECT_TRUE(status.ok()) << status;
  }
  // Bytes in the file, whoever put them there.
  void Fill(uint64_t page) const { file_.address()[page * kPageBytes] = std::byte{1}; }
  void GiveBack(uint64_t page) const {
    ASSERT_EQ(::fallocate(file_.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                          static_cast<off_t>(page * kPageBytes), kPageBytes),
              0);
  }
  // The process writes a page.
  void Write(uint64_t page) {
    Fill(page);
    process_.entries[page] = SoftDirtyPages::kPresent | SoftDirtyPages::kSoftDirty;
  }

  const MemoryFile file_ = *MemoryFile::Create(BytesIn(PageCount(kPages)), "tracked");
  PlayedProcess process_;
  std::unique_ptr<SoftDirtyTracker> tracker_;
};

TEST_F(SoftDirtyTest, all_pages_count_as_written_at_first) {
  const auto tracker = *SoftDirtyTracker::Create(std::make_unique<PlayedPages>(process_),
                                                 {{0, kPages * kPageBytes, &file_}});
  EXPECT_EQ(CollectAll(*tracker), (PageRuns{{0, kPages}}));
}

TEST_F(SoftDirtyTest, it_clears_after_all_was_read) {
  Gather();
  EXPECT_THAT(process_.calls, ElementsAre("read", "read", "clear"));
}

TEST_F(SoftDirtyTest, the_last_gathering_clears_nothing) {
  Write(5);
  ASSERT_TRUE(tracker_->GatherLast().ok());
  EXPECT_THAT(process_.calls, ElementsAre("read", "read"));
  EXPECT_EQ(CollectAll(*tracker_), (PageRuns{{5, 1}}));
}

TEST_F(SoftDirtyTest, writes_are_reported_once_also_at_the_edges_of_what_is_read_at_a_time) {
  for (const uint64_t page : {0, 63, 64, 8191, 8192, 9999}) Write(page);
  Gather();
  EXPECT_EQ(CollectAll(*tracker_), (PageRuns{{0, 1}, {63, 2}, {8191, 2}, {9999, 1}}));
  Gather();
  EXPECT_TRUE(CollectAll(*tracker_).empty());
}

TEST_F(SoftDirtyTest, what_is_not_collected_outlives_the_next_clearing) {
  Write(100);
  Write(5000);
  Gather();
  PageRuns runs;
  ASSERT_TRUE(tracker_->Collect(0, {0, 1000}, runs).ok());
  EXPECT_EQ(runs, (PageRuns{{100, 1}}));
  Gather();
  EXPECT_EQ(CollectAll(*tracker_), (PageRuns{{5000, 1}}));
}

TEST_F(SoftDirtyTest, a_slice_is_collected_without_its_neighbours) {
  for (uint64_t page = 60; page < 140; ++page) Write(page);
  Gather();
  PageRuns runs;
  ASSERT_TRUE(tracker_->Collect(0, {70, 60}, runs).ok());
  EXPECT_EQ(runs, (PageRuns{{70, 60}}));
  EXPECT_EQ(CollectAll(*tracker_), (PageRuns{{60, 10}, {130, 10}}));
}

TEST_F(SoftDirtyTest, peek_sees_gathered_and_new_writes_and_takes_none) {
  Write(1);
  Gather();
  Write(2);
  PageRuns runs;
  ASSERT_TRUE(tracker_->Peek(0, {0, kPages}, runs).ok());
  EXPECT_EQ(runs, (PageRuns{{1, 2}}));
  Gather();
  EXPECT_EQ(CollectAll(*tracker_), (PageRuns{{1, 2}}));
}

TEST_F(SoftDirtyTest, a_page_swapped_out_and_in_again_before_anybody_read_it_is_reported) {
  Fill(7);
  process_.entries[7] = SoftDirtyPages::kPresent;  // read back: the bit is lost
  Gather();
  EXPECT_EQ(CollectAll(*tracker_), (PageRuns{{7, 1}}));
  Gather();
  EXPECT_TRUE(CollectAll(*tracker_).empty());
}

TEST_F(SoftDirtyTest, data_that_the_process_has_not_mapped_is_reported_once) {
  for (const uint64_t page : {8190, 8191, 8192, 9999}) Fill(page);
  Gather();
  EXPECT_EQ(CollectAll(*tracker_), (PageRuns{{8190, 3}, {9999, 1}}));
  Gather();
  EXPECT_TRUE(CollectAll(*tracker_).empty());
}

TEST_F(SoftDirtyTest, memory_given_back_is_reported_once_and_when_it_is_taken_again) {
  Write(9);
  Gather();
  CollectAll(*tracker_);
  GiveBack(9);
  process_.entries[9] = 0;
  Gather();
  EXPECT_EQ(CollectAll(*tracker_), (PageRuns{{9, 1}}));
  Gather();
  EXPECT_TRUE(CollectAll(*tracker_).empty());
  Write(9);
  Gather();
  EXPECT_EQ(CollectAll(*tracker_), (PageRuns{{9, 1}}));
}

TEST_F(SoftDirtyTest, a_page_that_the_kernel_moves_keeps_its_bit) {
  Write(11);
  process_.entries[11] = SoftDirtyPages::kSwapped | SoftDirtyPages::kSoftDirty;
  Gather();
  EXPECT_EQ(CollectAll(*tracker_), (PageRuns{{11, 1}}));
}

TEST(SoftDirtyMemoryTest, hugetlbfs_is_refused) {
  UniqueFd fd(::memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB));
  if (!fd.valid() || ::ftruncate(fd.get(), static_cast<off_t>(MiB(4).value())) != 0) {
    GTEST_SKIP() << "this kernel has no hugetlbfs";
  }
  const auto file = MemoryFile::Map(std::move(fd), MiB(4), false, "huge");
  if (!file.ok()) GTEST_SKIP() << file.status();
  const TrackedRange range{reinterpret_cast<uintptr_t>(file->address()), MiB(4).value(), &*file};
  EXPECT_THAT(Message(CheckSoftDirtyMemory(::getpid(), {&range, 1})), HasSubstr("hugetlbfs"));
}

TEST(SoftDirtyMemoryTest, ordinary_memory_is_taken_and_a_process_that_is_gone_is_an_error) {
  const MemoryFile file = *MemoryFile::Create(MiB(4), "file");
  const TrackedRange range{reinterpret_cast<uintptr_t>(file.address()), MiB(4).value(), &file};
  const absl::Status status = CheckSoftDirtyMemory(::getpid(), {&range, 1});
  EXPECT_TRUE(status.ok() || absl::IsFailedPrecondition(status))
      << status;  // a host may use huge pages
  EXPECT_FALSE(CheckSoftDirtyMemory(0x3fffff, {&range, 1}).ok());
}

// A process of its own that shares `file` with the test and does what it is told.
class Child {
 public:
  explicit Child(const MemoryFile& file) {
    int commands[2];
    int answers[2];
    if (::pipe(commands) != 0 || ::pipe(answers) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(commands[1]);
      ::close(answers[0]);
      Run(file, commands[0], answers[1]);
    }
    ::close(commands[0]);
    ::close(answers[1]);
    commands_.Reset(commands[1]);
    answers_.Reset(answers[0]);
  }
  ~Child() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  void Write(uint64_t page) const { Tell('w', page); }
  void Read(uint64_t page) const { Tell('r', page); }
  // Writes pages at random from now on, as fast as it can.
  void Rage() const { Send('!', 0); }
  void Stop() const {
    ::kill(pid_, SIGSTOP);
    int status = 0;
    ::waitpid(pid_, &status, WUNTRACED);
    if (!WIFSTOPPED(status)) std::abort();
  }
  void GoOn() const { ::kill(pid_, SIGCONT); }

 private:
  struct Command {
    uint64_t verb;
    uint64_t page;
  };
  void Send(char verb, uint64_t page) const {
    const Command command{static_cast<uint64_t>(verb), page};
    if (::write(commands_.get(), &command, sizeof command) != sizeof command) std::abort();
  }
  void Tell(char verb, uint64_t page) const {
    Send(verb, page);
    char answer = 0;
    if (::read(answers_.get(), &answer, 1) != 1) std::abort();
  }
  [[noreturn]] static void Run(const MemoryFile& file, int commands, int answers) {
    Command command{};
    auto* const words = reinterpret_cast<volatile uint64_t*>(file.address());
    constexpr uint64_t kWordsPerPage = kPageBytes / sizeof(uint64_t);
    while (::read(commands, &command, sizeof command) == sizeof command) {
      if (command.verb == '!') {
        std::minstd_rand random(1);
        for (uint64_t count = 1;; ++count) {
          words[random() % kPages * kWordsPerPage + random() % kWordsPerPage] = count;
        }
      }
      volatile uint64_t& word = words[command.page * kWordsPerPage];
      if (command.verb == 'w') word = word + 1;
      if (command.verb == 'r') (void)static_cast<uint64_t>(word);
      if (::write(answers, "", 1) != 1) ::_exit(1);
    }
    ::_exit(0);
  }

  pid_t pid_ = 0;
  UniqueFd commands_;
  UniqueFd answers_;
};

class SoftDirtyProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const absl::Status status = CheckSoftDirtyTracking(); !status.ok()) {
      GTEST_SKIP() << "this kernel has no soft-dirty bits";
    }
    child_ = std::make_unique<Child>(file_);
    auto tracker = SoftDirtyTracker::Create(
        child_->pid(),
        {{reinterpret_cast<uintptr_t>(file_.address()), kPages * kPageBytes, &file_}});
    ASSERT_TRUE(tracker.ok()) << tracker.status();
    tracker_ = *std::move(tracker);
    Round();
  }
  PageRuns Round() {
    child_->Stop();
    const absl::Status status = tracker_->Gather();
    EXPECT_TRUE(status.ok()) << status;
    child_->GoOn();
    return CollectAll(*tracker_);
  }

  const MemoryFile file_ = *MemoryFile::Create(BytesIn(PageCount(kPages)), "tracked");
  std::unique_ptr<Child> child_;
  std::unique_ptr<SoftDirtyTracker> tracker_;
};

TEST_F(SoftDirtyProcessTest, each_written_page_is_seen_once_and_reading_is_not_writing) {
  for (const uint64_t page : {3, 4, 9000}) child_->Write(page);
  EXPECT_EQ(Round(), (PageRuns{{3, 2}, {9000, 1}}));
  EXPECT_TRUE(Round().empty());
  child_->Write(4);
  child_->Read(3);
  child_->Read(9000);
  EXPECT_EQ(Round(), (PageRuns{{4, 1}}));
}

TEST_F(SoftDirtyProcessTest, no_write_is_lost_over_many_rounds) {
  std::vector<std::byte> copy(kPages * kPageBytes);
  child_->Rage();
  for (int round = 0; round < 30; ++round) {
    ::usleep(2000);  // for the child to write some pages: how many does not matter
    for (const PageRun& run : Round()) {
      std::memcpy(&copy[run.first * kPageBytes], file_.address() + run.first * kPageBytes,
                  run.count * kPageBytes);
    }
  }
  child_->Stop();
  ASSERT_TRUE(tracker_->Gather().ok());
  for (const PageRun& run : CollectAll(*tracker_)) {
    std::memcpy(&copy[run.first * kPageBytes], file_.address() + run.first * kPageBytes,
                run.count * kPageBytes);
  }
  uint64_t differ = 0;
  for (uint64_t page = 0; page < kPages; ++page) {
    differ +=
        static_cast<uint64_t>(std::memcmp(&copy[page * kPageBytes],
                                          file_.address() + page * kPageBytes, kPageBytes) != 0);
  }
  EXPECT_EQ(differ, 0U);
}

}  // namespace
}  // namespace ramferry
