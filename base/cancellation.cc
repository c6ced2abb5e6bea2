#include "base/cancellation.h"

#include <sys/eventfd.h>

#include <cstdint>
#include <utility>

namespace ramferry {

Cancellation::Cancellation() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

void Cancellation::Request(std::string reason) {
  const std::lock_guard lock(mutex_);
  if (requested_.load(std::memory_order_relaxed)) return;
  reason_ = std::move(reason);
  requested_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
}

absl::Status Cancellation::status() const {
  if (!requested()) return absl::OkStatus();
  const std::lock_guard lock(mutex_);
  return absl::CancelledError(reason_);
}

}  // namespace ramferry
