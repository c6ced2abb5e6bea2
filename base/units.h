// Quantities that must not be mixed up: bytes and pages.
//
//   ByteCount size = BytesIn(PageCount(3));   // 12288 bytes
//   PageCount pages = PagesCovering(size);    // 3 pages
//
// "Page" is always the unit in which dirt is tracked: 4 KiB, also where the memory is backed by
// larger pages. All operations are free functions of values; nothing here can fail.
#pragma once

#include <compare>
#include <cstdint>

namespace ramferry {

template <class Tag>
class Count {
 public:
  constexpr Count() = default;
  constexpr explicit Count(uint64_t value) : value_(value) {}

  [[nodiscard]] constexpr uint64_t value() const { return value_; }

  constexpr Count& operator+=(Count other) {
    value_ += other.value_;
    return *this;
  }
  constexpr Count& operator-=(Count other) {
    value_ -= other.value_;
    return *this;
  }
  friend constexpr Count operator+(Count a, Count b) { return Count(a.value_ + b.value_); }
  friend constexpr Count operator-(Count a, Count b) { return Count(a.value_ - b.value_); }
  friend constexpr auto operator<=>(Count, Count) = default;

 private:
  uint64_t value_ = 0;
};

using ByteCount = Count<struct ByteTag>;
using PageCount = Count<struct PageTag>;

inline constexpr uint64_t kPageBytes = 4096;
inline constexpr uint64_t kPageShift = 12;

constexpr ByteCount KiB(uint64_t n) {
  return ByteCount(n << 10);
}
constexpr ByteCount MiB(uint64_t n) {
  return ByteCount(n << 20);
}
constexpr ByteCount GiB(uint64_t n) {
  return ByteCount(n << 30);
}

constexpr ByteCount BytesIn(PageCount pages) {
  return ByteCount(pages.value() << kPageShift);
}

// The pages needed to hold `bytes`; the last one may be partly used.
constexpr PageCount PagesCovering(ByteCount bytes) {
  return PageCount((bytes.value() + kPageBytes - 1) >> kPageShift);
}

}  // namespace ramferry
