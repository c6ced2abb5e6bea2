// Event descriptors (eventfd(2)) as the threads of page channels wake and stop one another with.
#pragma once

#include <unistd.h>

#include <cstdint>

#include "base/unique_fd.h"

namespace ramferry::tcp {

// Makes it readable.
inline void SignalEvent(const UniqueFd& event) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event.get(), &one, sizeof one);
}

// Takes back what made it readable. For descriptors that do not block.
inline void ResetEvent(const UniqueFd& event) {
  uint64_t ignored = 0;
  [[maybe_unused]] const ssize_t got = ::read(event.get(), &ignored, sizeof ignored);
}

}  // namespace ramferry::tcp
