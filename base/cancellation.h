// One person's wish to stop, seen by every thread that works on a migration.
//
//   Cancellation cancel;                       // owned by whoever started the work
//   std::thread worker([&] { while (!cancel.requested()) ...; });
//   cancel.Request("interrupted by the user"); // from any thread, or a signal-handling thread
//
// Thread-safe. Request() takes effect once; later reasons are ignored. `fd()` becomes readable with
// the request, so that a poll(2) can wait for it beside a socket; it is never read.
#pragma once

#include <atomic>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "base/unique_fd.h"

namespace ramferry {

class Cancellation {
 public:
  Cancellation();

  void Request(std::string reason);
  [[nodiscard]] bool requested() const { return requested_.load(std::memory_order_acquire); }
  [[nodiscard]] int fd() const { return event_.get(); }

  // OK, or absl::CancelledError with the reason.
  [[nodiscard]] absl::Status status() const;

 private:
  std::atomic<bool> requested_{false};
  mutable std::mutex mutex_;
  std::string reason_;  // guarded by mutex_
  UniqueFd event_;
};

}  // namespace ramferry
