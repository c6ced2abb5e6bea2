// Work that must come to its end even when this process is killed.
//
//   RunApart([&] { result = Dangerous(); });
//
// Runs `work` in a process of its own that shares this one's memory and file descriptors, and waits
// for it. SIGKILL of this process does not reach it (nor do a terminal's signals: all are blocked
// there). Only what strikes both does: SIGKILL to the whole control group, the host going down.
//
// For a few system calls that leave something of someone else's in between: what `work` waits for,
// a killed process is still seen to wait for. It must not throw, nor use thread-local data that it
// did not set. Descriptors that it opens are this process's. Thread-safe.
#pragma once

#include <functional>

#include "absl/status/status.h"

namespace ramferry {

// Unavailable: there was no process to be had, or it was killed, at whatever point it had reached.
[[nodiscard]] absl::Status RunApart(const std::function<void()>& work);

}  // namespace ramferry
