// The memory of a channel's staging ring: kStagingBytes, in huge pages of 2 MiB if there are any.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"

namespace ramferry::rdma {

class StagingMemory {
 public:
  StagingMemory() = default;  // none
  [[nodiscard]] static absl::StatusOr<StagingMemory> Map();
  StagingMemory(StagingMemory&& other) noexcept { *this = std::move(other); }
  StagingMemory& operator=(StagingMemory&& other) noexcept;
  StagingMemory(const StagingMemory&) = delete;
  StagingMemory& operator=(const StagingMemory&) = delete;
  ~StagingMemory() { Unmap(); }

  [[nodiscard]] std::byte* bytes() const { return bytes_; }  // null: none
  [[nodiscard]] bool in_huge_pages() const { return huge_; }

 private:
  void Unmap();

  std::byte* bytes_ = nullptr;
  bool huge_ = false;
};

}  // namespace ramferry::rdma
