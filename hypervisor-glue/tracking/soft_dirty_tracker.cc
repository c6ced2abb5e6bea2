#include "hypervisor-glue/tracking/soft_dirty_tracker.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// Entries read at a time: 64 KiB of stack, 32 MiB of memory.
constexpr size_t kEntriesPerRead = 8192;
constexpr uint64_t kBitsPerWord = 64;

void Set(std::vector<std::atomic<uint64_t>>& bits, uint64_t page) {
  bits[page / kBitsPerWord].fetch_or(uint64_t{1} << (page % kBitsPerWord),
                                     std::memory_order_relaxed);
}
void Unset(std::vector<std::atomic<uint64_t>>& bits, uint64_t page) {
  bits[page / kBitsPerWord].fetch_and(~(uint64_t{1} << (page % kBitsPerWord)),
                                      std::memory_order_relaxed);
}
bool Test(const std::vector<std::atomic<uint64_t>>& bits, uint64_t page) {
  return ((bits[page / kBitsPerWord].load(std::memory_order_relaxed) >> (page % kBitsPerWord)) &
          1) != 0;
}

class ProcessPages : public SoftDirtyPages {
 public:
  static absl::StatusOr<std::unique_ptr<SoftDirtyPages>> Open(pid_t pid) {
    auto pages = std::make_unique<ProcessPages>();
    const std::string directory = fmt::format("/proc/{}/", pid);
    pages->pagemap_.Reset(::open((directory + "pagemap").c_str(), O_RDONLY | O_CLOEXEC));
    pages->clear_refs_.Reset(::open((directory + "clear_refs").c_str(), O_WRONLY | O_CLOEXEC));
    if (!pages->pagemap_.valid() || !pages->clear_refs_.valid()) {
      return ErrnoStatus(
          errno,
          fmt::format("cannot open {}pagemap and {}clear_refs (root or CAP_SYS_PTRACE needed)",
                      directory, directory));
    }
    return pages;
  }
  absl::Status Read(uint64_t address, std::span<uint64_t> entries) override {
    const ssize_t wanted = static_cast<ssize_t>(entries.size_bytes());
    const auto offset = static_cast<off_t>((address >> kPageShift) * sizeof(uint64_t));
    const ssize_t got = ::pread(pagemap_.get(), entries.data(), entries.size_bytes(), offset);
    if (got == wanted) return absl::OkStatus();
    if (got < 0)
      return ErrnoStatus(errno, fmt::format("cannot read the pagemap at {:#x}", address));
    return absl::InternalError(fmt::format(
        "the pagemap ends at {:#x}: the guest's memory is no longer mapped as it was", address));
  }
  absl::Status Clear() override {
    if (::pwrite(clear_refs_.get(), "4", 1, 0) == 1) return absl::OkStatus();
    return ErrnoStatus(errno, "cannot clear the soft-dirty bits");
  }

 private:
  UniqueFd pagemap_;
  UniqueFd clear_refs_;
};

bool HostSwaps() {
  std::ifstream swaps("/proc/swaps");
  std::string line;
  std::getline(swaps, line);  // the header
  return static_cast<bool>(std::getline(swaps, line)) && !line.empty();
}

}  // namespace

absl::Status CheckSoftDirtyTracking() {
  const UniqueFd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!pagemap.valid()) return ErrnoStatus(errno, "cannot open /proc/self/pagemap");
  // Every page of a mapping counts as soft-dirty until the first clearing.
  void* page =
      ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return ErrnoStatus(errno, "cannot map a page");
  *static_cast<volatile char*>(page) = 1;
  uint64_t entry = 0;
  const auto offset = static_cast<off_t>(reinterpret_cast<uintptr_t>(page) / kPageBytes * 8);
  const ssize_t got = ::pread(pagemap.get(), &entry, sizeof entry, offset);
  ::munmap(page, kPageBytes);
  if (got != sizeof entry) return ErrnoStatus(errno, "cannot read /proc/self/pagemap");
  if ((entry & SoftDirtyPages::kSoftDirty) != 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "nor has it soft-dirty bits (CONFIG_MEM_SOFT_DIRTY, which Debian's and Red Hat's kernels "
      "have)");
}

absl::Status CheckSoftDirtyMemory(pid_t pid, std::span<const TrackedRange> ranges) {
  for (const TrackedRange& range : ranges) {
    if (range.file->backing_page_size() != ByteCount(kPageBytes)) {
      return absl::FailedPreconditionError(
          fmt::format("guest memory at {:#x} is on hugetlbfs, and this kernel cannot see writes "
                      "there (soft-dirty "
                      "bits): use memory on tmpfs, or Linux 6.7 or newer",
                      range.address));
    }
  }
  std::ifstream smaps(fmt::format("/proc/{}/smaps", pid));
  bool ours = false;
  for (std::string line; std::getline(smaps, line);) {
    uint64_t start = 0;
    uint64_t end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &start, &end) == 2) {
      ours = std::any_of(ranges.begin(), ranges.end(), [&](const TrackedRange& range) {
        return start < range.address + range.length && range.address < end;
      });
      continue;
    }
    if (!ours) continue;
    for (const char* field : {"THPeligible:", "ShmemPmdMapped:", "FilePmdMapped:"}) {
      if (!line.starts_with(field)) continue;
      if (std::strtoull(line.c_str() + std::string_view(field).size(), nullptr, 10) == 0) continue;
      return absl::FailedPreconditionError(
          "guest memory may have transparent huge pages, with which this kernel's soft-dirty bits "
          "lose writes: mount its tmpfs with huge=never (mount -o remount,huge=never /dev/shm) and "
          "start the guest again, or use Linux 6.7 or newer");
    }
  }
  if (smaps.bad() || !smaps.eof()) {
    return absl::PermissionDeniedError(
        fmt::format("cannot read /proc/{}/smaps: run as root or with CAP_SYS_PTRACE", pid));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<SoftDirtyTracker>> SoftDirtyTracker::Create(
    pid_t pid, const std::vector<TrackedRange>& ranges) {
  ASSIGN_OR_RETURN(auto pages, ProcessPages::Open(pid));
  RETURN_IF_ERROR(CheckSoftDirtyMemory(pid, ranges));
  return Create(std::move(pages), ranges);
}

absl::StatusOr<std::unique_ptr<SoftDirtyTracker>> SoftDirtyTracker::Create(
    std::unique_ptr<SoftDirtyPages> pages, const std::vector<TrackedRange>& ranges) {
  std::unique_ptr<SoftDirtyTracker> tracker(new SoftDirtyTracker(std::move(pages)));
  for (const TrackedRange& memory : ranges) {
    const uint64_t words = (memory.length / kPageBytes + kBitsPerWord - 1) / kBitsPerWord;
    Range range{.memory = memory, .written = Bits(words), .reported = Bits(words)};
    for (auto& word : range.written) word.store(~uint64_t{0}, std::memory_order_relaxed);
    range.locked = ::mlock2(memory.file->address(), memory.length, MLOCK_ONFAULT) == 0;
    const int error = errno;
    const bool locked = range.locked;
    tracker->ranges_.push_back(std::move(range));
    if (!locked && HostSwaps()) {
      return ErrnoStatus(
          error,
          "this host swaps, and a page that is swapped out loses its soft-dirty bit; locking the "
          "guest's pages meanwhile failed (root or CAP_IPC_LOCK needed, or LimitMEMLOCK=infinity)");
    }
  }
  return tracker;
}

SoftDirtyTracker::~SoftDirtyTracker() {
  for (const Range& range : ranges_) {
    if (range.locked) ::munlock(range.memory.file->address(), range.memory.length);
  }
}

absl::Status SoftDirtyTracker::Gather() {
  RETURN_IF_ERROR(GatherLast());
  // After reading: nothing was written in between, as our caller promises.
  return pages_->Clear();
}

absl::Status SoftDirtyTracker::GatherLast() {
  for (Range& range : ranges_) RETURN_IF_ERROR(GatherRange(range));
  return absl::OkStatus();
}

absl::Status SoftDirtyTracker::GatherRange(Range& range) {
  std::array<uint64_t, kEntriesPerRead> entries;
  const uint64_t pages = range.memory.length / kPageBytes;
  PageRun unmapped;
  for (uint64_t first = 0; first < pages; first += kEntriesPerRead) {
    const uint64_t count = std::min<uint64_t>(kEntriesPerRead, pages - first);
    RETURN_IF_ERROR(
        pages_->Read(range.memory.address + first * kPageBytes, {entries.data(), count}));
    for (uint64_t page = first; page < first + count; ++page) {
      const uint64_t entry = entries[page - first];
      const bool mapped = (entry & (SoftDirtyPages::kPresent | SoftDirtyPages::kSwapped)) != 0;
      if (mapped) {
        if ((entry & SoftDirtyPages::kSoftDirty) != 0 || !Test(range.reported, page)) {
          Set(range.written, page);
          Set(range.reported, page);
        }
        continue;
      }
      if (unmapped.end() != page) {
        RETURN_IF_ERROR(GatherUnmapped(range, unmapped));
        unmapped = {page, 0};
      }
      ++unmapped.count;
    }
  }
  return GatherUnmapped(range, unmapped);
}

// Pages that the process has not mapped: never touched, given back, swapped out before anybody had
// seen them, or put there by somebody else (an earlier migration to this host).
absl::Status SoftDirtyTracker::GatherUnmapped(Range& range, PageRun unmapped) {
  if (unmapped.count == 0) return absl::OkStatus();
  PageRuns data;
  RETURN_IF_ERROR(range.memory.file->PopulatedRuns(unmapped, data));
  data.push_back({unmapped.end(), 0});
  uint64_t page = unmapped.first;
  for (const PageRun& run : data) {
    for (; page < run.first; ++page) {
      if (!Test(range.reported, page)) continue;
      Set(range.written, page);
      Unset(range.reported, page);
    }
    for (; page < run.end(); ++page) {
      if (Test(range.reported, page)) continue;
      Set(range.written, page);
      Set(range.reported, page);
    }
  }
  return absl::OkStatus();
}

absl::Status SoftDirtyTracker::Collect(size_t range, PageRun pages, PageRuns& runs) {
  Bits& written = ranges_[range].written;
  for (uint64_t page = pages.first; page < pages.end();) {
    const uint64_t bit = page % kBitsPerWord;
    const uint64_t count = std::min(kBitsPerWord - bit, pages.end() - page);
    const uint64_t mask = (count == kBitsPerWord ? ~uint64_t{0} : (uint64_t{1} << count) - 1)
                          << bit;
    auto& word = written[page / kBitsPerWord];
    uint64_t taken = 0;
    if ((word.load(std::memory_order_relaxed) & mask) != 0) {
      taken = word.fetch_and(~mask, std::memory_order_relaxed) & mask;
    }
    for (uint64_t i = 0; i < count; ++i) {
      if (((taken >> (bit + i)) & 1) != 0) AppendRun(runs, {page + i, 1});
    }
    page += count;
  }
  return absl::OkStatus();
}

absl::Status SoftDirtyTracker::Peek(size_t index, PageRun pages, PageRuns& runs) {
  const Range& range = ranges_[index];
  std::array<uint64_t, kEntriesPerRead> entries;
  for (uint64_t first = pages.first; first < pages.end(); first += kEntriesPerRead) {
    const uint64_t count = std::min<uint64_t>(kEntriesPerRead, pages.end() - first);
    RETURN_IF_ERROR(
        pages_->Read(range.memory.address + first * kPageBytes, {entries.data(), count}));
    for (uint64_t page = first; page < first + count; ++page) {
      if (Test(range.written, page) || (entries[page - first] & SoftDirtyPages::kSoftDirty) != 0) {
        AppendRun(runs, {page, 1});
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace ramferry
