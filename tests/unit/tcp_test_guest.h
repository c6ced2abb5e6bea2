// Memory that stands in for a guest's in the tests of the TCP page channels.
#pragma once

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/guest_memory.h"
#include "base/unique_fd.h"

namespace ramferry {

// One region of `pages` pages: a memory file, or anonymous. Untouched.
class TestMemory {
 public:
  enum class Kind { kFile, kAnonymous };

  TestMemory(Kind kind, uint64_t pages) : bytes_(pages * kPageBytes) {
    if (kind == Kind::kFile) {
      fd_.Reset(::memfd_create("test guest", MFD_CLOEXEC));
      if (::ftruncate(fd_.get(), static_cast<off_t>(bytes_)) != 0) std::abort();
    }
    void* mapped = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                          fd_.valid() ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd_.get(), 0);
    if (mapped == MAP_FAILED) std::abort();
    memory_ = static_cast<std::byte*>(mapped);
  }
  ~TestMemory() { ::munmap(memory_, bytes_); }
  TestMemory(const TestMemory&) = delete;
  TestMemory& operator=(const TestMemory&) = delete;

  [[nodiscard]] std::byte* data() const { return memory_; }
  [[nodiscard]] std::byte* page(uint64_t number) const { return memory_ + number * kPageBytes; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  [[nodiscard]] uint64_t file_blocks() const {  // of 512 bytes; memory that the file really has
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) std::abort();
    return static_cast<uint64_t>(status.st_blocks);
  }
  [[nodiscard]] MappedRegion region(std::string name = "ram") const {
    return {.description = {.name = std::move(name), .size = ByteCount(bytes_)},
            .address = memory_,
            .fd = fd_.get()};
  }
  void FillRandomly(uint64_t seed) {
    std::mt19937_64 random(seed);
    for (uint64_t i = 0; i < bytes_; i += sizeof(uint64_t)) {
      const uint64_t value = random();
      std::memcpy(memory_ + i, &value, sizeof value);
    }
  }

 private:
  uint64_t bytes_;
  UniqueFd fd_;
  std::byte* memory_ = nullptr;
};

}  // namespace ramferry
