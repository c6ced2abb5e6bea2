// Points in time by which something must have happened. Always the monotonic clock.
#pragma once

#include <algorithm>
#include <chrono>

namespace ramferry {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

template <class Rep, class Period>
Deadline In(std::chrono::duration<Rep, Period> time) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(time);
}

// Milliseconds left, for poll(2): never negative, at most `most`, rounded up so that a wait never
// ends before its deadline.
inline int MillisecondsLeft(Deadline deadline, int most = 60'000) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<long long>(left, 0, most));
}

inline double MillisecondsBetween(Deadline from, Deadline to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace ramferry
