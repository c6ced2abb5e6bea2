#include "base/local_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/numa_memory.h"
#include "base/unique_fd.h"
#include "base/units.h"

namespace ramferry {
namespace {

size_t WholePages(size_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

// A file only for its name. Where there can be none (no descriptor is left) it is anonymous.
void* Map(size_t length) {
  const UniqueFd file(::memfd_create("ramferry-local", MFD_CLOEXEC));
  if (file.valid() && ::ftruncate(file.get(), static_cast<off_t>(length)) == 0) {
    void* const pages = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (pages != MAP_FAILED) return pages;
  }
  return ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

}  // namespace

void* TakeLocalPages(size_t bytes) {
  const size_t length = WholePages(bytes);
  void* const pages = Map(length);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  // Otherwise the kernel moves them to a thread of another node that uses them once: the one that
  // makes a channel also proves and flushes it, before its worker has begun.
  KeepWhereTouched(static_cast<std::byte*>(pages), length);
  // Written to: who reads first is given no page of his own, and who comes second would decide.
  for (size_t at = 0; at < length; at += kPageBytes) {
    static_cast<volatile std::byte*>(pages)[at] = std::byte{0};
  }
  return pages;
}

void GiveBackLocalPages(void* pages, size_t bytes) noexcept {
  ::munmap(pages, WholePages(bytes));
}

}  // namespace ramferry
