#include "base/populate.h"

#include <sys/mman.h>

#include <cerrno>

#include "base/status.h"

namespace ramferry {

absl::Status Populate(std::byte* address, uint64_t length) {
  for (;;) {
    if (::madvise(address, length, MADV_POPULATE_WRITE) == 0) return absl::OkStatus();
    switch (errno) {
      case EINTR:
      case EAGAIN:
        continue;
      case EINVAL:
        return absl::OkStatus();
      case ENOMEM:
      case EFAULT:  // the write would have been answered with SIGBUS
        return absl::ResourceExhaustedError("there is no memory left for it");
      default:
        return ErrnoStatus(errno, "cannot get memory");
    }
  }
}

}  // namespace ramferry
