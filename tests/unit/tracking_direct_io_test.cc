// Direct I/O into tracked memory: why collecting needs the I/O drained.
//
// A disk read with O_DIRECT pins its pages when it begins, which marks them as written, and the
// data lands later, without a page fault. A page collected in between is clean for the tracker and
// new in memory: stale at the destination. Reads of other threads stand in for a guest's disk here.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "hypervisor-glue/tracking/memory_file.h"
#include "hypervisor-glue/tracking/uffd_tracker.h"

namespace ramferry {
namespace {

constexpr uint64_t kBytes = 32 << 20;
constexpr uint64_t kReadBytes = 1 << 20;
constexpr uint64_t kFileBytes = 48 << 20;

// A file of random-looking blocks that can be read with O_DIRECT; gone with the object.
class DiskFile {
 public:
  DiskFile() {
    for (const char* directory : {"/var/tmp", "/tmp", "."}) {
      path_ = std::string(directory) + "/ramferry-direct-XXXXXX";
      UniqueFd writing(::mkostemp(path_.data(), O_CLOEXEC));
      if (!writing.valid()) continue;
      fd_.Reset(::open(path_.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
      ::unlink(path_.c_str());
      if (fd_.valid() && Fill(writing.get())) return;
      fd_.Reset();
    }
  }
  [[nodiscard]] bool usable() const { return fd_.valid(); }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  static bool Fill(int fd) {
    std::vector<uint64_t> block(kReadBytes / sizeof(uint64_t));
    for (uint64_t at = 0; at < kFileBytes; at += kReadBytes) {
      for (size_t i = 0; i < block.size(); ++i) block[i] = (at + i) * 0x9e3779b97f4a7c15;
      if (::pwrite(fd, block.data(), kReadBytes, static_cast<off_t>(at)) !=
          static_cast<ssize_t>(kReadBytes)) {
        return false;
      }
    }
    return ::fsync(fd) == 0;
  }
  std::string path_;
  UniqueFd fd_;
};

class DirectIo : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const absl::Status status = CheckUffdTracking(); !status.ok()) {
      GTEST_SKIP() << status;
    }
    if (!disk_.usable()) GTEST_SKIP() << "no file system here takes O_DIRECT";
    tracker_ = *UffdTracker::Create(
        ::getpid(), *OpenOwnUserfaultfd(),
        {{reinterpret_cast<uintptr_t>(guest_.address()), guest_.size().value()}});
  }

  // Collects and copies to the shadow, like a round.
  void Round() {
    PageRuns runs;
    ASSERT_TRUE(tracker_->Collect(0, {0, kBytes / kPageBytes}, runs).ok());
    for (const PageRun& run : runs) {
      std::memcpy(shadow_.data() + run.first * kPageBytes,
                  guest_.address() + run.first * kPageBytes, run.count * kPageBytes);
    }
  }
  // Rounds while a disk reads into the guest; returns how many pages of the copy are stale when the
  // disk has stopped and the last round is done.
  uint64_t StalePages(bool drain) {
    std::atomic<bool> stop{false};
    std::atomic<bool> failed{false};
    std::shared_mutex draining;       // a read holds it shared
    std::atomic<bool> no_new{false};  // as the lock alone would prefer readers
    std::vector<std::thread> disk;
    for (uint64_t thread = 0; thread < 3; ++thread) {
      disk.emplace_back([&, thread] {
        uint64_t random = thread + 1;
        while (!stop.load() && !failed.load()) {
          random = random * 6364136223846793005ULL + 1442695040888963407ULL;
          const uint64_t from = (random >> 20) % (kFileBytes / kReadBytes) * kReadBytes;
          const uint64_t to = (random >> 40) % (kBytes / kReadBytes) * kReadBytes;
          while (no_new.load() && !stop.load()) std::this_thread::yield();
          const std::shared_lock lock(draining);
          // Not pread(2) by its name: ThreadSanitizer would see what a device does unseen.
          if (::syscall(SYS_pread64, disk_.fd(), guest_.address() + to, kReadBytes, from) !=
              static_cast<long>(kReadBytes)) {
            failed = true;
          }
        }
      });
    }
    for (int round = 0; round < 60; ++round) {
      if (drain) {
        no_new = true;
        {
          const std::unique_lock lock(draining);  // "stop": no read in flight
          Round();
        }
        no_new = false;
      } else {
        Round();
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    stop = true;
    for (std::thread& thread : disk) thread.join();
    EXPECT_FALSE(failed) << "reading with O_DIRECT failed";
    Round();
    uint64_t stale = 0;
    for (uint64_t at = 0; at < kBytes; at += kPageBytes) {
      if (std::memcmp(guest_.address() + at, shadow_.data() + at, kPageBytes) != 0) ++stale;
    }
    return stale;
  }

  DiskFile disk_;
  MemoryFile guest_ = *MemoryFile::Create(ByteCount(kBytes), "guest");
  std::vector<std::byte> shadow_{kBytes};
  std::unique_ptr<WriteTracker> tracker_;
};

// Not a wish but a fact that the design rests on: should this ever fail, draining is not needed.
TEST_F(DirectIo, without_a_drain_pages_stay_stale_after_the_last_collect) {
  uint64_t stale = 0;
  for (int attempt = 0; attempt < 10 && stale == 0; ++attempt) stale = StalePages(false);
  EXPECT_GT(stale, 0U);
}

TEST_F(DirectIo, with_the_io_drained_around_each_collect_no_page_is_stale) {
  EXPECT_EQ(StalePages(true), 0U);
  EXPECT_EQ(StalePages(true), 0U);
}

}  // namespace
}  // namespace ramferry
