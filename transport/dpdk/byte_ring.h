// Bytes from one thread to another, without a lock: one writes, one reads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

namespace ramferry::dpdk {

class ByteRing {
 public:
  // `capacity`: a power of two.
  explicit ByteRing(size_t capacity) : bytes_(capacity) {}

  [[nodiscard]] size_t capacity() const { return bytes_.size(); }
  // The writer's view may be too small, the reader's is exact; never too large.
  [[nodiscard]] size_t free() const {
    return bytes_.size() - (written_.load() - read_.load(std::memory_order_acquire));
  }
  [[nodiscard]] bool empty() const { return written_.load() == read_.load(); }

  // The writer: as many of these bytes as fit.
  size_t Write(std::span<const std::byte> from) {
    const size_t at = written_.load(std::memory_order_relaxed);
    const size_t count = std::min(from.size(), free());
    const size_t begin = at & (bytes_.size() - 1);
    const size_t first = std::min(count, bytes_.size() - begin);
    if (first > 0) std::memcpy(bytes_.data() + begin, from.data(), first);
    if (count > first) std::memcpy(bytes_.data(), from.data() + first, count - first);
    written_.store(at + count);  // sequentially consistent: Connection's sleepers rely on it
    return count;
  }

  // The reader: what lies there in one piece, and that its first `count` bytes are done with.
  [[nodiscard]] std::span<const std::byte> Peek() const {
    const size_t at = read_.load(std::memory_order_relaxed);
    const size_t begin = at & (bytes_.size() - 1);
    const size_t held = written_.load(std::memory_order_acquire) - at;
    return {bytes_.data() + begin, std::min(held, bytes_.size() - begin)};
  }
  void Skip(size_t count) { read_.store(read_.load(std::memory_order_relaxed) + count); }

 private:
  std::vector<std::byte> bytes_;
  alignas(64) std::atomic<size_t> written_{0};  // since the beginning, as the other
  alignas(64) std::atomic<size_t> read_{0};
};

}  // namespace ramferry::dpdk
