#include "hypervisor-glue/tracking/memory_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

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

absl::Status MemoryFile::PopulatedRuns(PageRun pages, PageRuns& runs) const {
  const auto end = static_cast<off_t>(std::min(pages.end() << kPageShift, size_.value()));
  auto position = static_cast<off_t>(pages.first << kPageShift);
  while (position < end) {
    const off_t data = ::lseek(fd_.get(), position, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // only a hole is left
    if (data < 0) return ErrnoStatus(errno, "cannot find the used memory of " + name_);
    if (data >= end) break;
    off_t hole = ::lseek(fd_.get(), data, SEEK_HOLE);
    if (hole < 0) return ErrnoStatus(errno, "cannot find the holes of " + name_);
    hole = std::min(hole, end);
    AppendRun(runs, {static_cast<uint64_t>(data) >> kPageShift,
                     static_cast<uint64_t>(hole - data) >> kPageShift});
    position = hole;
  }
  return absl::OkStatus();
}

absl::Status MemoryFile::Clear() const {
  if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                  static_cast<off_t>(size_.value())) != 0) {
    return ErrnoStatus(errno, "cannot free the memory of " + name_);
  }
  return absl::OkStatus();
}

}  // namespace ramferry
