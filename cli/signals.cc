#include "cli/signals.h"

#include <csignal>
#include <ctime>
#include <utility>

namespace ramferry {

SignalWatch::SignalWatch(std::function<void(int signal, int count)> on_signal) {
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGINT);
  sigaddset(&watched, SIGTERM);
  struct sigaction hang_up {};
  ::sigaction(SIGHUP, nullptr, &hang_up);
  if (hang_up.sa_handler != SIG_IGN) sigaddset(&watched, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &watched, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  thread_ = std::jthread([watched, on_signal = std::move(on_signal)](const std::stop_token& stop) {
    int count = 0;
    while (!stop.stop_requested()) {
      const timespec glance{.tv_sec = 0, .tv_nsec = 100'000'000};
      const int signal = ::sigtimedwait(&watched, nullptr, &glance);
      if (signal > 0) on_signal(signal, ++count);
    }
  });
}

SignalWatch::~SignalWatch() = default;

}  // namespace ramferry
