// Measures how a running guest writes its memory, without moving it.
//
//   RETURN_IF_ERROR(guest.StartTracking());
//   ASSIGN_OR_RETURN(DirtyTrace trace, MeasureWorkingSet(guest, {}, clock));
//   RETURN_IF_ERROR(guest.RollBack());            // the caller's, whatever happened
//
// Time is cut into epochs. At the beginning of each all watched memory is collected (which
// write-protects it); then the dirty pages are looked at again and again without being cleared, as
// in figure 2 of Clark et al. (NSDI 2005). So a page costs the guest one fault an epoch, however
// often it writes it, and one epoch tells how many pages were written within 10 ms, within 20 ms,
// and so on up to its length.
//
// What it costs the guest is kept under a budget: the first epoch watches a sixteenth of the
// memory, in blocks taken at random; what was found decides how much the others may watch.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "base/deadline.h"
#include "engine/prediction/dirty_trace.h"
#include "hypervisor-glue/guest.h"

namespace ramferry {

struct MeterOptions {
  std::chrono::milliseconds time{20'000};
  uint32_t epochs = 5;
  // Of the virtual CPUs' time, for faults of kFaultMicroseconds each.
  double budget = 0.01;
};

// What noting the first write to a page takes: the fault, on today's hosts, with what the CPU's
// caches lose by it. bench/wws measures what the whole comes to.
inline constexpr double kFaultMicroseconds = 2;

class MeterClock {
 public:
  virtual ~MeterClock() = default;
  [[nodiscard]] virtual double NowMs() = 0;
  // Cancelled when somebody wants it to end.
  [[nodiscard]] virtual absl::Status SleepUntil(double ms) = 0;
};

// The monotonic clock, from its construction on.
class RealMeterClock : public MeterClock {
 public:
  explicit RealMeterClock(const Cancellation& cancel) : cancel_(cancel) {}
  double NowMs() override { return MillisecondsBetween(start_, Clock::now()); }
  absl::Status SleepUntil(double ms) override;

 private:
  const Cancellation& cancel_;
  const Deadline start_ = Clock::now();
};

struct WorkingSet {
  DirtyTrace trace;
  double share = 1;   // of the memory that was watched, on average over the later epochs
  double faults = 0;  // that the guest had because of us
  double cost = 0;    // these, as a part of its virtual CPUs' time, by kFaultMicroseconds
};

// The guest's tracking has been started. `progress` is called with the part that is done, 0 to 1.
// FailedPrecondition: this guest's writes are only seen while it stands still.
[[nodiscard]] absl::StatusOr<WorkingSet> MeasureWorkingSet(
    SourceGuest& guest, const MeterOptions& options, MeterClock& clock,
    const std::function<void(double)>& progress = nullptr);

}  // namespace ramferry
