// Predicts the downtime of a stop-and-copy that would begin now: pages left over the measured
// bandwidth, plus finding them, plus what stopping, device state and resuming cost whatever the
// pages.
#pragma once

#include <algorithm>

#include "base/units.h"
#include "engine/report.h"

namespace ramferry {

class DowntimeModel {
 public:
  // What a QEMU switch-over takes without pages, until it is known better: 20 ms (measured: 5 to
  // 15).
  explicit DowntimeModel(double fixed_ms = 20) : fixed_ms_(fixed_ms) {}

  // A round sent `bytes` in `ms`, its flush included. Small rounds say little about the bandwidth,
  // as they are mostly waiting: only a round of at least half the largest one so far, or 16 MiB,
  // counts.
  //
  // `limit`: what the round might send, in bytes a second; `most`: what any may; 0: there was no
  // limit. The stop is not held back by the limit of the round before it: where that was all that
  // slowed the round down, the stop is taken to reach `most`.
  void AddRound(ByteCount bytes, double ms, ByteCount limit = {}, ByteCount most = {}) {
    if (ms <= 0 || bytes.value() == 0) return;
    double rate = static_cast<double>(bytes.value()) / ms;
    const double limit_per_ms = static_cast<double>(limit.value()) / 1000;
    if (limit < most && limit_per_ms > 0 && rate >= limit_per_ms * kHeldUp) {
      rate *= static_cast<double>(most.value()) / static_cast<double>(limit.value());
    }
    if (bytes_per_ms_ > 0 && bytes < MiB(16) && bytes.value() * 2 < largest_.value()) return;
    largest_ = std::max(largest_, bytes);
    // A round of scattered pages is slower than the first, of long runs; the last will be like it.
    bytes_per_ms_ = bytes_per_ms_ == 0 ? rate : 0.5 * bytes_per_ms_ + 0.5 * rate;
  }

  void AddRound(const RoundReport& round, ByteCount most) {
    AddRound(round.bytes, round.ms - round.quiesced_ms - round.idle_ms, round.rate_limit, most);
  }

  // `collect_ms`: what it takes to find out which pages are dirty. That is done twice while the
  // guest stands still: for what it wrote last, and for what saving its devices wrote.
  [[nodiscard]] double Predict(PageCount dirty, double collect_ms = 0) const {
    const double fixed_ms = fixed_ms_ + 2 * collect_ms;
    if (bytes_per_ms_ <= 0) return fixed_ms;
    return fixed_ms + static_cast<double>(BytesIn(dirty).value()) / bytes_per_ms_;
  }
  // That the stop is expected to send; 0: not known.
  [[nodiscard]] double bytes_per_ms() const { return bytes_per_ms_; }

 private:
  // A round that reached this part of its limit was held up by that.
  static constexpr double kHeldUp = 0.9;

  double fixed_ms_;
  double bytes_per_ms_ = 0;
  ByteCount largest_;
};

}  // namespace ramferry
