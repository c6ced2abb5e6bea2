// A file that holds guest memory (tmpfs, hugetlbfs): mapped here, its holes known.
//
//   ASSIGN_OR_RETURN(MemoryFile file, MemoryFile::Map(std::move(fd), size, /*writable=*/false,
//   name)); RETURN_IF_ERROR(file.PopulatedRuns({0, 1024}, runs));
//
// Mapping never populates: pages that nobody touched stay holes. Const calls are thread-safe.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/page_run.h"
#include "base/unique_fd.h"
#include "base/units.h"

namespace ramferry {

class MemoryFile {
 public:
  MemoryFile() = default;
  MemoryFile(MemoryFile&& other) noexcept { *this = std::move(other); }
  MemoryFile& operator=(MemoryFile&& other) noexcept;
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile();

  // `size` must not exceed the file; `name` is for error messages.
  [[nodiscard]] static absl::StatusOr<MemoryFile> Map(UniqueFd fd, ByteCount size, bool writable,
                                                      std::string name);
  // A new anonymous file (memfd) of zeros, mapped writable.
  [[nodiscard]] static absl::StatusOr<MemoryFile> Create(ByteCount size, std::string name);

  [[nodiscard]] std::byte* address() const { return address_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] ByteCount size() const { return size_; }
  // 4 KiB, or the huge page size of a hugetlbfs file.
  [[nodiscard]] ByteCount backing_page_size() const { return backing_page_size_; }
  // Bytes of memory the file holds now (its blocks).
  [[nodiscard]] absl::StatusOr<ByteCount> Populated() const;

  // Appends the runs of `pages` that are not holes, ascending. Memory that is swapped out counts. A
  // page that is populated or freed meanwhile may count or not. The cost follows `pages`, not the
  // size of the file.
  [[nodiscard]] absl::Status PopulatedRuns(PageRun pages, PageRuns& runs) const;

  // For each page the NUMA node that it is on; -1 for holes, for what is swapped out, and for huge
  // pages that this mapping has never touched. Maps pages that are there; populates none.
  void NodesOfPages(std::span<const uint64_t> pages, std::span<int> nodes) const;

  // Frees all of the file's memory: it reads as zeros afterwards and takes no memory.
  [[nodiscard]] absl::Status Clear() const;

 private:
  // The same by SEEK_DATA and SEEK_HOLE. `data_end` is kept from call to call, at first 0.
  absl::Status DataRuns(PageRun pages, uint64_t& data_end, PageRuns& runs) const;

  UniqueFd fd_;
  std::byte* address_ = nullptr;
  ByteCount size_;
  ByteCount backing_page_size_ = KiB(4);
  bool mincore_tells_ = false;
  std::string name_;
};

}  // namespace ramferry
