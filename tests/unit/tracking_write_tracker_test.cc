// What the write tracker promises, on the kernel that runs the test.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "hypervisor-glue/tracking/memory_file.h"
#include "hypervisor-glue/tracking/uffd_tracker.h"

namespace ramferry {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kPages = 4096;

// Volatile, so that every store is made.
void Store(const MemoryFile& file, uint64_t page, unsigned char value) {
  reinterpret_cast<volatile unsigned char*>(file.address())[page * kPageBytes + 100] = value;
}

absl::StatusOr<std::unique_ptr<UffdTracker>> Track(const MemoryFile& file) {
  ASSIGN_OR_RETURN(UniqueFd uffd, OpenOwnUserfaultfd());
  return UffdTracker::Create(::getpid(), std::move(uffd),
                             {{reinterpret_cast<uintptr_t>(file.address()), file.size().value()}});
}

// Whether the kernel write-tracks the mapping at `address`: "uw" among its VmFlags (proc(5)).
bool KernelTracks(const std::byte* address) {
  std::ifstream smaps("/proc/self/smaps");
  bool found = false;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long start = 0;
    unsigned long end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &start, &end) == 2) {
      const auto wanted = reinterpret_cast<uintptr_t>(address);
      found = start <= wanted && wanted < end;
    } else if (found && line.starts_with("VmFlags:")) {
      return line.find(" uw") != std::string::npos;
    }
  }
  return false;
}

class WriteTrackerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const absl::Status status = CheckUffdTracking(); !status.ok()) {
      GTEST_SKIP() << status;
    }
    tracker_ = *Track(file_);
  }
  PageRuns Collect(PageRun pages = {0, kPages}) {
    PageRuns runs;
    const absl::Status status = tracker_->Collect(0, pages, runs);
    EXPECT_TRUE(status.ok()) << status;
    return runs;
  }
  PageRuns Peek(PageRun pages = {0, kPages}) {
    PageRuns runs;
    const absl::Status status = tracker_->Peek(0, pages, runs);
    EXPECT_TRUE(status.ok()) << status;
    return runs;
  }

  void PunchHole(uint64_t first, uint64_t count) const {
    ASSERT_EQ(
        ::fallocate(file_.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(first * kPageBytes), static_cast<off_t>(count * kPageBytes)),
        0);
  }

  MemoryFile file_ = *MemoryFile::Create(ByteCount(kPages * kPageBytes), "tracked");
  std::unique_ptr<WriteTracker> tracker_;
};

TEST_F(WriteTrackerTest, everything_counts_as_written_at_first_and_nothing_afterwards) {
  for (uint64_t page = 0; page < kPages; page += 2) Store(file_, page, 1);
  EXPECT_EQ(Peek(), (PageRuns{{0, kPages}}));
  EXPECT_EQ(Collect(), (PageRuns{{0, kPages}}));
  EXPECT_TRUE(Collect().empty());
}

TEST_F(WriteTrackerTest, each_written_page_is_seen_exactly_once) {
  for (uint64_t page = 0; page < kPages; ++page) Store(file_, page, 1);
  Collect();
  Store(file_, 0, 2);
  Store(file_, 7, 2);
  Store(file_, 8, 2);
  Store(file_, kPages - 1, 2);
  Store(file_, 8, 3);
  EXPECT_EQ(Collect(), (PageRuns{{0, 1}, {7, 2}, {kPages - 1, 1}}));
  EXPECT_TRUE(Collect().empty());
  Store(file_, 7, 4);
  EXPECT_EQ(Collect(), (PageRuns{{7, 1}}));
}

TEST_F(WriteTrackerTest, a_write_of_the_same_value_and_a_write_through_the_file_count_too) {
  Store(file_, 5, 1);
  Collect();
  Store(file_, 5, 1);
  EXPECT_EQ(Collect(), (PageRuns{{5, 1}}));
}

TEST_F(WriteTrackerTest, reading_is_not_writing) {
  for (uint64_t page = 0; page < kPages; page += 3) Store(file_, page, 1);
  Collect();
  unsigned sum = 0;
  for (uint64_t page = 0; page < kPages; ++page) {
    sum += reinterpret_cast<volatile unsigned char*>(file_.address())[page * kPageBytes];
  }
  EXPECT_EQ(sum, 0U);
  EXPECT_TRUE(Collect().empty());
}

TEST_F(WriteTrackerTest, peek_does_not_clear) {
  Collect();
  Store(file_, 3, 1);
  EXPECT_EQ(Peek(), (PageRuns{{3, 1}}));
  EXPECT_EQ(Peek(), (PageRuns{{3, 1}}));
  EXPECT_EQ(Collect(), (PageRuns{{3, 1}}));
  EXPECT_TRUE(Peek().empty());
}

TEST_F(WriteTrackerTest,
       the_first_touch_of_an_unpopulated_page_is_seen_and_scans_populate_nothing) {
  Collect();
  Peek();
  EXPECT_EQ(*file_.Populated(), ByteCount(0)) << "tracking has populated memory";
  Store(file_, 1000, 0);  // a page of zeros, but a page
  EXPECT_EQ(Collect(), (PageRuns{{1000, 1}}));
  EXPECT_EQ(*file_.Populated(), KiB(4));
}

// Memory that a guest gives back (a balloon) becomes a hole, which reads as zeros.
TEST_F(WriteTrackerTest, memory_written_and_then_given_back_is_seen) {
  for (uint64_t page = 0; page < kPages; ++page) Store(file_, page, 1);
  Collect();
  for (uint64_t page = 64; page < 96; ++page) Store(file_, page, 2);
  PunchHole(64, 32);
  EXPECT_EQ(Collect(), (PageRuns{{64, 32}}));
}

// The kernel keeps the write protection of a page that is punched away while it is clean: giving
// back is not writing. What a guest may expect to read there is undefined until it writes, and
// that is seen. Who compares both images byte by byte must know it.
TEST_F(WriteTrackerTest, memory_given_back_while_clean_is_seen_when_it_is_written_again) {
  for (uint64_t page = 0; page < kPages; ++page) Store(file_, page, 1);
  Collect();
  PunchHole(64, 32);
  EXPECT_TRUE(Collect().empty());
  Store(file_, 70, 1);
  EXPECT_EQ(Collect(), (PageRuns{{70, 1}}));
}

TEST_F(WriteTrackerTest, a_slice_is_collected_without_its_neighbours) {
  Collect();
  for (const uint64_t page : {99UL, 100UL, 199UL, 200UL}) Store(file_, page, 1);
  EXPECT_EQ(Collect({100, 100}), (PageRuns{{100, 1}, {199, 1}}));
  EXPECT_EQ(Collect(), (PageRuns{{99, 1}, {200, 1}}));
}

TEST_F(WriteTrackerTest, more_runs_than_one_scan_returns) {
  Collect();
  for (uint64_t page = 0; page < kPages; page += 2) Store(file_, page, 1);
  const PageRuns runs = Collect();
  ASSERT_EQ(runs.size(), kPages / 2);
  for (uint64_t i = 0; i < runs.size(); ++i) ASSERT_EQ(runs[i], (PageRun{2 * i, 1}));
  EXPECT_TRUE(Collect().empty());
}

// Writers put a growing number into every page; a reader collects and copies until they stop. Were
// a write lost, the copy would be old.
TEST_F(WriteTrackerTest, no_write_of_several_threads_is_lost_while_slices_are_collected_at_once) {
  constexpr uint64_t kWriters = 2;
  constexpr uint64_t kCollectors = 2;
  std::vector<std::atomic<uint64_t>> copy(kPages);
  const auto number = [this](uint64_t page) {
    return std::atomic_ref<uint64_t>(
        *reinterpret_cast<uint64_t*>(file_.address() + page * kPageBytes));
  };
  std::atomic<uint64_t> writing{kWriters};
  std::vector<std::thread> threads;
  for (uint64_t writer = 0; writer < kWriters; ++writer) {
    threads.emplace_back([&, writer] {
      uint64_t at = writer;
      for (uint64_t step = 1; step < 60000; ++step) {
        at = (at * 6364136223846793005ULL + 1442695040888963407ULL);
        const uint64_t page = (at >> 33) % (kPages / kWriters) * kWriters + writer;
        number(page).store(step, std::memory_order_relaxed);
      }
      writing.fetch_sub(1);
    });
  }
  const auto collect = [&](uint64_t collector) {
    const uint64_t pages = kPages / kCollectors;
    PageRuns runs;
    ASSERT_TRUE(tracker_->Collect(0, {collector * pages, pages}, runs).ok());
    for (const PageRun& run : runs) {
      for (uint64_t page = run.first; page < run.end(); ++page) {
        copy[page].store(number(page).load(std::memory_order_relaxed));
      }
    }
  };
  for (uint64_t collector = 0; collector < kCollectors; ++collector) {
    threads.emplace_back([&, collector] {
      while (writing.load() > 0) collect(collector);
      collect(collector);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(copy[page].load(), number(page).load()) << "page " << page;
  }
}

TEST_F(WriteTrackerTest, destroying_it_ends_the_tracking_and_another_can_begin) {
  Collect();
  EXPECT_TRUE(KernelTracks(file_.address()));
  tracker_.reset();
  EXPECT_FALSE(KernelTracks(file_.address()));
  Store(file_, 0, 1);
  tracker_ = *Track(file_);
  EXPECT_TRUE(KernelTracks(file_.address()));
  EXPECT_EQ(Collect(), (PageRuns{{0, kPages}})) << "a new tracker knows nothing";
}

TEST_F(WriteTrackerTest, memory_that_somebody_else_tracks_is_refused_and_left_alone) {
  Collect();
  const auto second = Track(file_);
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
  EXPECT_THAT(Message(second.status()), HasSubstr("userfaultfd"));
  Store(file_, 9, 1);
  EXPECT_EQ(Collect(), (PageRuns{{9, 1}})) << "the refusal has disturbed the first tracker";
}

TEST_F(WriteTrackerTest, ranges_are_told_apart) {
  tracker_.reset();
  const MemoryFile other = *MemoryFile::Create(MiB(2), "other");
  tracker_ =
      *UffdTracker::Create(::getpid(), *OpenOwnUserfaultfd(),
                           {{reinterpret_cast<uintptr_t>(file_.address()), file_.size().value()},
                            {reinterpret_cast<uintptr_t>(other.address()), other.size().value()}});
  Collect();
  PageRuns runs;
  ASSERT_TRUE(tracker_->Collect(1, {0, 512}, runs).ok());
  Store(other, 17, 1);
  EXPECT_TRUE(Collect().empty());
  runs.clear();
  ASSERT_TRUE(tracker_->Collect(1, {0, 512}, runs).ok());
  EXPECT_EQ(runs, (PageRuns{{17, 1}}));
}

TEST_F(WriteTrackerTest, memory_that_is_not_mapped_is_an_error_that_says_where) {
  tracker_.reset();
  const auto tracker = UffdTracker::Create(::getpid(), *OpenOwnUserfaultfd(), {{0x1000, 0x1000}});
  EXPECT_THAT(Message(tracker.status()), HasSubstr("0x1000"));
}

TEST_F(WriteTrackerTest, a_process_that_is_gone_is_an_error_that_names_it) {
  const auto tracker = UffdTracker::Create(0x3fffff, *OpenOwnUserfaultfd(), {});
  EXPECT_THAT(Message(tracker.status()), HasSubstr("/proc/4194303/pagemap"));
}

TEST(MemoryFileTest, holes_are_known_and_clear_frees_everything) {
  const MemoryFile file = *MemoryFile::Create(MiB(4), "file");
  Store(file, 10, 1);
  Store(file, 11, 0);
  Store(file, 1023, 1);
  PageRuns runs;
  ASSERT_TRUE(file.PopulatedRuns({0, 1024}, runs).ok());
  EXPECT_EQ(runs, (PageRuns{{10, 2}, {1023, 1}}));
  runs.clear();
  ASSERT_TRUE(file.PopulatedRuns({11, 1000}, runs).ok());
  EXPECT_EQ(runs, (PageRuns{{11, 1}}));
  EXPECT_EQ(*file.Populated(), KiB(12));
  ASSERT_TRUE(file.Clear().ok());
  EXPECT_EQ(*file.Populated(), ByteCount(0));
  EXPECT_EQ(file.address()[10 * kPageBytes + 100], std::byte(0));
}

// As memory that is swapped out: not resident, and not a hole.
TEST(MemoryFileTest, data_that_is_not_resident_is_no_hole) {
  std::string path = "/var/tmp/ramferry-memory-file-XXXXXX";  // a disk, not memory
  UniqueFd fd(::mkstemp(path.data()));
  ASSERT_TRUE(fd.valid());
  ::unlink(path.c_str());
  ASSERT_EQ(::ftruncate(fd.get(), 64 * kPageBytes), 0);
  const std::vector<char> data(4 * kPageBytes, 'x');
  ASSERT_EQ(::pwrite(fd.get(), data.data(), data.size(), 16 * kPageBytes), 4 * kPageBytes);
  ASSERT_EQ(::fsync(fd.get()), 0);
  ASSERT_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  const MemoryFile file = *MemoryFile::Map(std::move(fd), KiB(256), /*writable=*/true, "file");
  std::array<unsigned char, 64> resident{};
  ASSERT_EQ(::mincore(file.address(), KiB(256).value(), resident.data()), 0);
  if ((resident[17] & 1) != 0) GTEST_SKIP() << "this file system keeps pages that it need not";
  PageRuns runs;
  ASSERT_TRUE(file.PopulatedRuns({0, 64}, runs).ok());
  EXPECT_EQ(runs, (PageRuns{{16, 4}}));
}

TEST(MemoryFileTest, a_file_smaller_than_the_guest_is_refused) {
  UniqueFd fd(::memfd_create("short", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(fd.get(), kPageBytes), 0);
  const auto file = MemoryFile::Map(std::move(fd), MiB(1), true, "/dev/shm/web1");
  EXPECT_TRUE(absl::IsFailedPrecondition(file.status()));
  EXPECT_THAT(Message(file.status()), HasSubstr("/dev/shm/web1"));
}

}  // namespace
}  // namespace ramferry
