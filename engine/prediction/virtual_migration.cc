#include "engine/prediction/virtual_migration.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ramferry {
namespace {

// As Precopy, which looks ahead so far in a long round.
constexpr double kLookPages = 2048;
// Of a zone: more would change little.
constexpr double kMostLooks = 16;

}  // namespace

VirtualMigration::VirtualMigration(const DirtyTrace& trace, const VirtualLink& link,
                                   uint64_t slice_pages)
    : trace_(trace),
      link_(link),
      slice_pages_(slice_pages),
      curves_(trace.ZoneCurves()),
      collected_(trace.zones.size()) {
  for (const Activity& activity : trace.activity) {
    period_ms_ += activity.ms;
    period_work_ += activity.ms / 1000 * activity.busy;
  }
}

double VirtualMigration::ActivityUntil(double ms) const {
  if (period_ms_ <= 0) return ms / 1000;
  const double periods = std::floor(ms / period_ms_);
  double left = ms - periods * period_ms_;
  double work = periods * period_work_;
  for (const Activity& activity : trace_.activity) {
    const double part = std::min(left, activity.ms);
    work += part / 1000 * activity.busy;
    left -= part;
    if (left <= 0) break;
  }
  return work;
}

void VirtualMigration::Pass(double ms) {
  const double end = stopped_ms_ ? std::min(now_ms_ + ms, *stopped_ms_) : now_ms_ + ms;
  if (end > now_ms_) work_ += cpu_share_ * (ActivityUntil(end) - ActivityUntil(now_ms_));
  now_ms_ += ms;
}

void VirtualMigration::BeginAfter(uint32_t rounds, double collected_ms_ago) {
  rounds_ = rounds;
  for (auto& collected : collected_) collected = work_ - collected_ms_ago / 1000;
}

double VirtualMigration::DirtyIn(size_t zone) const {
  if (!collected_[zone]) return static_cast<double>(trace_.zones[zone].contents.value());
  return curves_[zone].At(work_ - *collected_[zone]);
}

double VirtualMigration::SendingMs(double pages, ByteCount limit) const {
  double rate = link_.bytes_per_second;
  if (limit.value() > 0) rate = std::min(rate, static_cast<double>(limit.value()));
  return pages * (static_cast<double>(kPageBytes) + link_.page_overhead) / rate * 1000;
}

double VirtualMigration::dirty_pages() const {
  double pages = 0;
  for (size_t zone = 0; zone < collected_.size(); ++zone) pages += DirtyIn(zone);
  return pages;
}

// Of the pages written in one stretch of time, those written in the next, too: for a guest that
// goes on as before, both less what was written in the two together.
double VirtualMigration::DirtyAgain(size_t zone, double owed, std::optional<double> window,
                                    double since) const {
  const GrowthCurve& curve = curves_[zone];
  const double again = curve.At(since);
  if (!window) return std::min(again, owed);  // the first round: all contents are owed
  const double both = curve.At(*window) + again - curve.At(*window + since);
  return std::clamp(both, 0.0, std::min(owed, again));
}

double VirtualMigration::SendSlices(ByteCount limit) {
  double sent = 0;
  for (size_t zone = 0; zone < collected_.size();) {
    // One slice: all of it is collected at one moment, and then sent.
    uint64_t pages = 0;
    double dirty = 0;
    do {
      dirty += DirtyIn(zone);
      collected_[zone] = work_;
      pages += trace_.zones[zone].memory.value();
      ++zone;
    } while (zone < collected_.size() && pages + trace_.zones[zone].memory.value() <= slice_pages_);
    Pass(SendingMs(dirty, limit));
    sent += dirty;
  }
  return sent;
}

double VirtualMigration::SendQuiet(const VirtualRound& kind, double& skipped) {
  struct Owed {
    double pages = 0;
    std::optional<double> window;
  };
  std::vector<Owed> owed(collected_.size());
  for (size_t zone = 0; zone < collected_.size(); ++zone) {
    owed[zone].pages = DirtyIn(zone);
    if (collected_[zone]) owed[zone].window = work_ - *collected_[zone];
    collected_[zone] = work_;
  }
  const double start = work_;
  Pass(kind.pause_ms);
  double sent = 0;
  for (size_t zone = 0; zone < collected_.size(); ++zone) {
    // The engine looks again every 8 MiB.
    const double parts = std::clamp(
        static_cast<double>(trace_.zones[zone].memory.value()) / kLookPages, 1.0, kMostLooks);
    for (double part = 0; part < parts; ++part) {
      const double share = std::min(1.0, parts - part) / parts;
      const double again = DirtyAgain(zone, owed[zone].pages, owed[zone].window, work_ - start);
      const double pages = share * (owed[zone].pages - again);
      skipped += share * again;
      sent += pages;
      Pass(SendingMs(pages, kind.limit));
    }
  }
  return sent;
}

RoundReport VirtualMigration::Round(const VirtualRound& kind) {
  const double start = now_ms_;
  double skipped = 0;
  const double sent = kind.is_long ? SendQuiet(kind, skipped) : SendSlices(kind.limit);
  Pass(link_.round_ms);
  const double bytes = sent * (static_cast<double>(kPageBytes) + link_.page_overhead);
  bytes_sent_ += bytes;
  const auto whole = [](double value) { return static_cast<uint64_t>(std::llround(value)); };
  RoundReport report{.number = ++rounds_,
                     .pages = PageCount(whole(sent)),
                     .bytes = ByteCount(whole(bytes)),
                     .ms = now_ms_ - start,
                     .idle_ms = kind.is_long ? kind.pause_ms : 0,
                     .skipped_pages = PageCount(whole(skipped)),
                     .rate_limit = kind.limit,
                     .cpu_share = cpu_share_};
  const double left = dirty_pages();
  report.dirty_pages = PageCount(whole(left));
  report.dirty_rate = report.ms > 0 ? left * 1000 / report.ms : 0;
  return report;
}

double VirtualMigration::SendStopped() {
  if (!stopped_ms_) stopped_ms_ = now_ms_;
  const double pages = dirty_pages();
  const double ms = SendingMs(pages, {}) + link_.round_ms;
  bytes_sent_ += pages * (static_cast<double>(kPageBytes) + link_.page_overhead);
  for (auto& collected : collected_) collected = work_;
  Pass(ms);
  return ms;
}

}  // namespace ramferry
