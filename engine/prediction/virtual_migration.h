// A migration of a guest that is only known by its dirty trace, on a clock that does not tick.
//
//   VirtualMigration migration(trace, {.bytes_per_second = 1.25e9});
//   RoundReport round = migration.Round();      // the first: all contents
//   migration.dirty_pages();                    // what a stop now would have to send
//
// It does what the engine does, in the same order (engine/precopy.h). In a short round a slice is
// collected, then sent, then the next; a page that is written after that waits for the next round.
// In a long one everything is collected first, and what is dirty again when its turn comes is left
// out. Who decides how many rounds there are, of which kind and how fast, is prediction.h. Pages
// are expectations, not whole numbers; that hot pages are held is not followed: nearly all of them
// are left out as dirty again.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/units.h"
#include "engine/prediction/dirty_trace.h"
#include "engine/report.h"

namespace ramferry {

struct VirtualLink {
  double bytes_per_second = 1.25e9;  // what all channels together carry: 10 Gbit/s
  double page_overhead = 16;         // bytes on the wire beside the page's own
  double round_ms = 0.5;             // what a round takes besides: its flush
};

struct VirtualRound {
  ByteCount limit;  // bytes a second; 0: as the link
  bool is_long = false;
  double pause_ms = 0;  // of a long one: between collecting and sending
};

class VirtualMigration {
 public:
  // `trace` must outlive it. `slice`: what is collected at a time, in pages; 0: each zone.
  VirtualMigration(const DirtyTrace& trace, const VirtualLink& link, uint64_t slice_pages = 0);

  // Sends one round.
  RoundReport Round(const VirtualRound& kind = {});
  // Time passes, nothing is sent.
  void Wait(double ms) { Pass(ms); }
  // The guest gets that part of its CPUs' time from now on, and writes so much more slowly.
  void SetCpuShare(double share) { cpu_share_ = share; }
  // As if so many rounds had been made, and everything had been collected so long ago.
  void BeginAfter(uint32_t rounds, double collected_ms_ago);
  // The guest stands still from then on, which may be in the midst of a round.
  void StopGuestAt(double ms) { stopped_ms_ = ms; }
  // Sends what is dirty while the guest stands still (from now on, if not before); returns its
  // milliseconds.
  double SendStopped();

  // Pages written and not collected since: what a stop now would have to send.
  [[nodiscard]] double dirty_pages() const;
  [[nodiscard]] double now_ms() const { return now_ms_; }
  [[nodiscard]] double bytes_sent() const { return bytes_sent_; }

 private:
  // What the guest would have worked by then had nobody throttled or stopped it, in seconds of
  // average busyness.
  [[nodiscard]] double ActivityUntil(double ms) const;
  void Pass(double ms);
  [[nodiscard]] double DirtyIn(size_t zone) const;
  [[nodiscard]] double SendingMs(double pages, ByteCount limit) const;
  // What was left to send at the beginning of a round in a zone, of which so much is written again.
  [[nodiscard]] double DirtyAgain(size_t zone, double owed, std::optional<double> window,
                                  double since) const;
  double SendSlices(ByteCount limit);                           // pages sent
  double SendQuiet(const VirtualRound& kind, double& skipped);  // the same

  const DirtyTrace& trace_;
  const VirtualLink link_;
  const uint64_t slice_pages_;
  const std::vector<GrowthCurve> curves_;
  double period_ms_ = 0;  // of trace_.activity
  double period_work_ = 0;
  std::vector<std::optional<double>> collected_;  // when, as work_; never: all contents are dirty
  double now_ms_ = 0;
  double work_ = 0;  // that the guest has done, in seconds of average busyness
  double cpu_share_ = 1;
  std::optional<double> stopped_ms_;
  double bytes_sent_ = 0;
  uint32_t rounds_ = 0;
};

}  // namespace ramferry
