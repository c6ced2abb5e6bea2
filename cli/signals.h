// SIGINT, SIGTERM and SIGHUP, noticed on a thread: no work is done in a signal handler.
#pragma once

#include <functional>
#include <thread>

namespace ramferry {

// Blocks these signals in all threads made later: call it before any is made. Every signal calls
// `on_signal(number, how many there have been)` on a thread of this object. SIGHUP where it is not
// ignored already, as by nohup(1).
class SignalWatch {
 public:
  explicit SignalWatch(std::function<void(int signal, int count)> on_signal);
  ~SignalWatch();

 private:
  std::jthread thread_;
};

}  // namespace ramferry
