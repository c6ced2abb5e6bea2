#include "engine/prediction/virtual_migration.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ramferry {

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

void VirtualMigration::BeginAfter(uint32_t rounds, double dirty_pages) {
  rounds_ = rounds;
  dirty_before_ = dirty_pages;
  for (auto& collected : collected_) collected = work_;
}

double VirtualMigration::DirtyIn(size_t zone) const {
  if (!collected_[zone]) return static_cast<double>(trace_.zones[zone].contents.value());
  return curves_[zone].At(work_ - *collected_[zone]);
}

double VirtualMigration::SendingMs(double pages, double limit) const {
  const double rate = limit > 0 ? std::min(limit, link_.bytes_per_second) : link_.bytes_per_second;
  return pages * (static_cast<double>(kPageBytes) + link_.page_overhead) / rate * 1000;
}

double VirtualMigration::dirty_pages() const {
  double pages = 0;
  for (size_t zone = 0; zone < collected_.size(); ++zone) pages += DirtyIn(zone);
  // What is written meanwhile is mostly what was dirty already.
  return std::max(pages, dirty_before_);
}

RoundReport VirtualMigration::Round(double limit) {
  const double start = now_ms_;
  double sent = 0;
  for (size_t zone = 0; zone < collected_.size();) {
    // One slice: all of it is collected at one moment, and then sent.
    uint64_t pages = 0;
    double dirty = std::exchange(dirty_before_, 0);
    do {
      dirty += DirtyIn(zone);
      collected_[zone] = work_;
      pages += trace_.zones[zone].memory.value();
      ++zone;
    } while (zone < collected_.size() && pages + trace_.zones[zone].memory.value() <= slice_pages_);
    Pass(SendingMs(dirty, limit));
    sent += dirty;
  }
  Pass(link_.round_ms);
  const double bytes = sent * (static_cast<double>(kPageBytes) + link_.page_overhead);
  bytes_sent_ += bytes;
  RoundReport report{.number = ++rounds_,
                     .pages = PageCount(static_cast<uint64_t>(std::llround(sent))),
                     .bytes = ByteCount(static_cast<uint64_t>(std::llround(bytes))),
                     .ms = now_ms_ - start};
  const double left = dirty_pages();
  report.dirty_pages = PageCount(static_cast<uint64_t>(std::llround(left)));
  report.dirty_rate = report.ms > 0 ? left * 1000 / report.ms : 0;
  return report;
}

double VirtualMigration::SendStopped() {
  if (!stopped_ms_) stopped_ms_ = now_ms_;
  const double pages = dirty_pages();
  const double ms = SendingMs(pages, 0) + link_.round_ms;
  bytes_sent_ += pages * (static_cast<double>(kPageBytes) + link_.page_overhead);
  for (auto& collected : collected_) collected = work_;
  dirty_before_ = 0;
  Pass(ms);
  return ms;
}

}  // namespace ramferry
