#include "hypervisor-glue/tracking/memory_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/numa_memory.h"
#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {

MemoryFile& MemoryFile::operator=(MemoryFile&& other) noexcept {
  if (this != &other) {
    if (address_ != nullptr) ::munmap(address_, size_.value());
    fd_ = std::move(other.fd_);
    address_ = std::exchange(other.address_, nullptr);
    size_ = other.size_;
    backing_page_size_ = other.backing_page_size_;
    mincore_tells_ = other.mincore_tells_;
    name_ = std::move(other.name_);
  }
  return *this;
}

MemoryFile::~MemoryFile() {
  if (address_ != nullptr) ::munmap(address_, size_.value());
}

absl::StatusOr<MemoryFile> MemoryFile::Map(UniqueFd fd, ByteCount size, bool writable,
                                           std::string name) {
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return ErrnoStatus(errno, "cannot stat " + name);
  if (static_cast<uint64_t>(status.st_size) < size.value()) {
    return absl::FailedPreconditionError(
        fmt::format("{} is {} bytes, less than the {} bytes of guest memory it should hold", name,
                    status.st_size, size.value()));
  }
  MemoryFile file;
  struct statfs filesystem {};
  if (::fstatfs(fd.get(), &filesystem) == 0 && filesystem.f_type == HUGETLBFS_MAGIC) {
    file.backing_page_size_ = ByteCount(static_cast<uint64_t>(filesystem.f_bsize));
  }
  void* address = ::mmap(nullptr, size.value(), writable ? PROT_READ | PROT_WRITE : PROT_READ,
                         MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
  if (address == MAP_FAILED) return ErrnoStatus(errno, "cannot map " + name);
  file.mincore_tells_ = status.st_uid == ::geteuid() ||
                        ::faccessat(fd.get(), "", W_OK, AT_EMPTY_PATH | AT_EACCESS) == 0;
  // A core dump of ours must not hold somebody's guest.
  ::madvise(address, size.value(), MADV_DONTDUMP);
  file.fd_ = std::move(fd);
  file.address_ = static_cast<std::byte*>(address);
  file.size_ = size;
  file.name_ = std::move(name);
  return file;
}

absl::StatusOr<MemoryFile> MemoryFile::Create(ByteCount size, std::string name) {
  UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "cannot create a memory file");
  if (::ftruncate(fd.get(), static_cast<off_t>(size.value())) != 0) {
    return ErrnoStatus(errno, fmt::format("cannot size a memory file to {} bytes", size.value()));
  }
  return Map(std::move(fd), size, /*writable=*/true, std::move(name));
}

absl::StatusOr<ByteCount> MemoryFile::Populated() const {
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) return ErrnoStatus(errno, "cannot stat " + name_);
  return ByteCount(static_cast<uint64_t>(status.st_blocks) * 512);
}

// SEEK_HOLE from one data page looks at all pages up to the next hole, which is often the end of
// the file: asked once for every slice it would look at the whole file that often. mincore looks at
// no more than it is asked for, but it does not tell a hole from a page that is swapped out. So
// only pages that are not resident are asked after with lseek.
absl::Status MemoryFile::PopulatedRuns(PageRun pages, PageRuns& runs) const {
  constexpr uint64_t kPiece = 4096;  // pages
  std::array<unsigned char, kPiece> resident;
  const uint64_t end = std::min(pages.end(), PagesCovering(size_).value());
  uint64_t data_end = 0;  // pages before this one are known to be data
  if (!mincore_tells_)
    return DataRuns({pages.first, end - std::min(end, pages.first)}, data_end, runs);
  for (uint64_t page = pages.first; page < end;) {
    const uint64_t piece = std::min(kPiece, end - page);
    if (::mincore(address_ + (page << kPageShift), piece << kPageShift, resident.data()) != 0) {
      return ErrnoStatus(errno, "cannot find the used memory of " + name_);
    }
    const uint64_t piece_end = page + piece;
    for (const uint64_t first = page; page < piece_end;) {
      const uint64_t begin = page;
      const bool is_resident = (resident[page - first] & 1) != 0;
      while (page < piece_end && ((resident[page - first] & 1) != 0) == is_resident) ++page;
      if (is_resident) {
        AppendRun(runs, {begin, page - begin});
      } else {
        RETURN_IF_ERROR(DataRuns({begin, page - begin}, data_end, runs));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status MemoryFile::DataRuns(PageRun pages, uint64_t& data_end, PageRuns& runs) const {
  for (uint64_t page = pages.first; page < pages.end();) {
    if (page >= data_end) {
      const off_t data = ::lseek(fd_.get(), static_cast<off_t>(page << kPageShift), SEEK_DATA);
      if (data < 0 && errno == ENXIO) return absl::OkStatus();  // only a hole is left
      if (data < 0) return ErrnoStatus(errno, "cannot find the used memory of " + name_);
      page = static_cast<uint64_t>(data) >> kPageShift;
      if (page >= pages.end()) return absl::OkStatus();
      const off_t hole = ::lseek(fd_.get(), data, SEEK_HOLE);
      if (hole < 0) return ErrnoStatus(errno, "cannot find the holes of " + name_);
      data_end = std::max(PagesCovering(ByteCount(static_cast<uint64_t>(hole))).value(), page + 1);
    }
    const uint64_t run_end = std::min(data_end, pages.end());
    AppendRun(runs, {page, run_end - page});
    page = run_end;
  }
  return absl::OkStatus();
}

void MemoryFile::NodesOfPages(std::span<const uint64_t> pages, std::span<int> nodes) const {
  std::vector<uint64_t> addresses;
  for (const uint64_t page : pages) {
    const std::byte* const address = address_ + (page << kPageShift);
    addresses.push_back(reinterpret_cast<uint64_t>(address));
    unsigned char resident = 0;
    // A page that is there is mapped by reading it: the kernel tells nodes of mapped pages only.
    if (mincore_tells_ && backing_page_size_ == KiB(4) &&
        ::mincore(address_ + (page << kPageShift), kPageBytes, &resident) == 0 &&
        (resident & 1) != 0) {
      [[maybe_unused]] const auto byte = *static_cast<const volatile std::byte*>(address);
    }
  }
  NodesOfAddresses(0, addresses, nodes);
}

absl::Status MemoryFile::Clear() const {
  if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                  static_cast<off_t>(size_.value())) != 0) {
    return ErrnoStatus(errno, "cannot free the memory of " + name_);
  }
  return absl::OkStatus();
}

}  // namespace ramferry
