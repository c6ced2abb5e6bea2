#include "engine/on_cancel.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

namespace ramferry {

OnCancel::OnCancel(const Cancellation& cancel, std::function<void()> action)
    : thread_([&cancel, action = std::move(action)](const std::stop_token& stop) {
        // The owner must not wait for the next glance when it ends this: the wait is interruptible.
        std::mutex mutex;
        std::condition_variable_any stopped;
        std::unique_lock lock(mutex);
        while (!stop.stop_requested() && !cancel.requested()) {
          stopped.wait_for(lock, stop, std::chrono::milliseconds(20), [] { return false; });
        }
        if (cancel.requested()) action();
      }) {}

}  // namespace ramferry
