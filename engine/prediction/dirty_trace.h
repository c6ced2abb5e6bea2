// What was measured of a guest's writing, or made up: the input of every prediction.
//
//   ASSIGN_OR_RETURN(DirtyTrace trace, ParseDirtyTrace(text));
//   trace.WrittenWithin(0.1);   // pages written within 100 ms
//
// A trace holds the guest's memory in zones, in the order in which a migration sends them, and for
// each zone how many different pages were written within intervals of several lengths. `ramferry
// wws --trace` writes it, `ramferry predict --trace` reads it; docs/wws.md describes the file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/units.h"
#include "engine/prediction/growth_curve.h"

namespace ramferry {

struct DirtyZone {
  PageCount memory;
  PageCount contents;           // of these: neither holes nor zeros; what a first round sends
  std::vector<double> written;  // pages, for each of DirtyTrace::intervals_ms: never falling
};

// One look: pages of the whole guest written since the epoch began.
struct DirtySample {
  double ms = 0;  // since the epoch began
  double pages = 0;
};

// From one collection of all dirty pages to the next.
struct DirtyEpoch {
  double start_ms = 0;  // since the measurement began
  double share = 1;     // of the memory that was watched in it, over 0 to 1
  std::vector<DirtySample> samples;
};

// How busy the guest was, for so long; the list is repeated. 1 is as busy as on average: what the
// curves are of. A guest twice as busy gets along its curve in half the time.
struct Activity {
  double ms = 0;
  double busy = 1;
};

// A piece of memory that is written much.
struct HotBlock {
  std::string region;
  uint64_t first_page = 0;  // in the region
  uint64_t pages = 0;
  double written = 0;  // of these: within kHotIntervalMs, on average
};
inline constexpr double kHotIntervalMs = 100;

// Blocks of this size are counted besides pages.
inline constexpr uint64_t kBlockPages = MiB(2).value() / kPageBytes;

struct DirtyTrace {
  std::string guest;
  std::string origin;                // for people: "measured in 20.0 s", "made up: ..."
  std::vector<double> intervals_ms;  // ascending, 1 to kMostIntervals
  std::vector<double> blocks;        // of 2 MiB, touched within each interval; empty: not counted
  std::vector<DirtyZone> zones;      // 1 to kMostZones
  std::vector<Activity> activity;    // empty: always the same
  std::vector<DirtyEpoch> timeline;  // may be empty
  std::vector<HotBlock> hottest;     // the hottest first

  [[nodiscard]] PageCount memory() const;
  [[nodiscard]] PageCount contents() const;
  // Sum of the zones at an interval of the list.
  [[nodiscard]] double WrittenIn(size_t interval) const;
  // The curves of the whole guest and of each zone.
  [[nodiscard]] GrowthCurve Curve() const;
  [[nodiscard]] std::vector<GrowthCurve> ZoneCurves() const;
};

inline constexpr size_t kMostIntervals = 64;
inline constexpr size_t kMostZones = 4096;
inline constexpr size_t kMostEpochs = 1000;
inline constexpr size_t kMostSamples = 10'000;      // of one epoch
inline constexpr uint64_t kMostPages = 1ULL << 40;  // 4 PiB

// InvalidArgument says which field is wrong, and what it must be. Pure.
[[nodiscard]] absl::StatusOr<DirtyTrace> ParseDirtyTrace(std::string_view text);
[[nodiscard]] std::string FormatDirtyTrace(const DirtyTrace& trace);

}  // namespace ramferry
