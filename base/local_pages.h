// Memory that one thread uses all the time: in pages of its own, on the NUMA node of the thread
// that asks for it, and so without a cache line of anybody else's.
//
//   LocalVector<ibv_sge> elements(64);                      // an array
//   class Channel : public PageChannel, public InLocalPages // objects made by new, make_unique
//
// The heap gives what a thread asks for from pages that it, or a thread that has ended, touched
// long ago, on whatever node that was. Here every page is touched before it is handed out, and
// stays on the node where it was; to have it beside another thread, ask while bound to that one's
// CPUs (BoundForAWhile, cpu_set.h).
//
// A mapping each, so for few and long-lived things. They are named: /proc/PID/numa_maps shows where
// the kernel has them, as /memfd:ramferry-local.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace ramferry {

// `bytes` rounded up to whole pages, all zeros. Throws std::bad_alloc, as operator new does.
[[nodiscard]] void* TakeLocalPages(size_t bytes);
// What TakeLocalPages(bytes) gave.
void GiveBackLocalPages(void* pages, size_t bytes) noexcept;

template <class T>
struct LocalPages {
  using value_type = T;
  LocalPages() = default;
  template <class U>
  LocalPages(const LocalPages<U>& /*other*/) {}  // NOLINT: as allocators convert
  [[nodiscard]] T* allocate(size_t count) {
    return static_cast<T*>(TakeLocalPages(count * sizeof(T)));
  }
  void deallocate(T* pages, size_t count) noexcept { GiveBackLocalPages(pages, count * sizeof(T)); }
  bool operator==(const LocalPages& /*other*/) const { return true; }
};
template <class T>
using LocalVector = std::vector<T, LocalPages<T>>;

class InLocalPages {
 public:
  static void* operator new(size_t bytes) { return TakeLocalPages(bytes); }
  static void* operator new(size_t bytes, std::align_val_t /*less than a page*/) {
    return TakeLocalPages(bytes);
  }
  static void operator delete(void* pages, size_t bytes) noexcept {
    GiveBackLocalPages(pages, bytes);
  }
  static void operator delete(void* pages, size_t bytes, std::align_val_t /*as above*/) noexcept {
    GiveBackLocalPages(pages, bytes);
  }

 protected:
  ~InLocalPages() = default;
};

}  // namespace ramferry
