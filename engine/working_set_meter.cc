#include "engine/working_set_meter.h"

#include <poll.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/zero_scan.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

constexpr uint64_t kZonesWanted = 256;
constexpr uint64_t kMostChunks = 16384;
constexpr uint64_t kLeastChunks = 8;  // watched in the first epoch, where there are so many
constexpr double kFirstShare = 1.0 / 16;
constexpr uint64_t kZeroSamples = 64;  // pages of a zone that are looked into
constexpr size_t kHottest = 10;
// Looks after the beginning of an epoch; then one every kLookEveryMs.
constexpr double kFirstLooksMs[] = {10, 20, 50, 100, 200};
constexpr double kLookEveryMs = 100;
// Looking may take a quarter of the time of one CPU of ours.
constexpr double kRest = 3;
// Fewer expected pages say nothing about how busy the guest was.
constexpr double kTellingPages = 64;

struct MeterZone {
  Slice memory;
  PageCount contents;
  std::vector<Slice> watched;  // in this epoch
  uint64_t watched_pages = 0;
  // Over all epochs: pages that were written within each interval, and pages that were watched.
  std::vector<double> written;
  std::vector<double> watched_for;
};

struct Look {
  double ms = 0;                // since the epoch began
  std::vector<double> written;  // pages, by zone
  double blocks = 0;
};

uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// The same for the same chunk and epoch, and as good as random.
double Lot(uint64_t chunk, uint64_t epoch) {
  uint64_t mixed = (chunk + 1) * 0x9e3779b97f4a7c15ULL ^ (epoch + 1) * 0xbf58476d1ce4e5b9ULL;
  mixed ^= mixed >> 30;
  mixed *= 0x94d049bb133111ebULL;
  mixed ^= mixed >> 31;
  return static_cast<double>(mixed >> 11) * 0x1.0p-53;
}

uint64_t BlocksIn(const PageRuns& runs) {
  uint64_t blocks = 0;
  uint64_t counted = 0;  // the block after the last that was counted
  for (const PageRun& run : runs) {
    const uint64_t first = std::max(run.first / kBlockPages, counted);
    const uint64_t end = (run.end() - 1) / kBlockPages + 1;
    if (end > first) blocks += end - first;
    counted = std::max(counted, end);
  }
  return blocks;
}

class Meter {
 public:
  Meter(SourceGuest& guest, const MeterOptions& options, MeterClock& clock,
        const std::function<void(double)>& progress)
      : guest_(guest), options_(options), clock_(clock), progress_(progress) {}

  absl::StatusOr<WorkingSet> Measure() {
    CutZones();
    RETURN_IF_ERROR(LookIntoContents());
    const double epoch_ms =
        static_cast<double>(options_.time.count()) / std::max(options_.epochs, 1U);
    SetIntervals(epoch_ms);
    const uint64_t chunks = (pages_ + chunk_pages_ - 1) / chunk_pages_;
    double share = std::min(
        1.0, std::max(kFirstShare, static_cast<double>(kLeastChunks) /
                                       static_cast<double>(std::max(chunks, uint64_t{1}))));
    for (uint32_t epoch = 0; epoch < std::max(options_.epochs, 1U); ++epoch) {
      ASSIGN_OR_RETURN(const double found, Epoch(epoch, share, epoch_ms));
      // Pages that may fault in an epoch of the whole memory.
      const double affordable = options_.budget * epoch_ms * 1000 / kFaultMicroseconds *
                                std::max<double>(guest_.description().vcpus, 1);
      share = found <= affordable ? 1 : affordable / found;
    }
    return Result();
  }

 private:
  void CutZones() {
    pages_ = PagesIn(guest_.regions()).value();
    chunk_pages_ = RoundUp(std::max(pages_ / kMostChunks, uint64_t{1}), kBlockPages);
    const uint64_t zone_pages = RoundUp(std::max(pages_ / kZonesWanted, uint64_t{1}), chunk_pages_);
    for (size_t region = 0; region < guest_.regions().size(); ++region) {
      const uint64_t end = guest_.regions()[region].pages();
      first_block_.push_back(blocks_);
      blocks_ += (end + kBlockPages - 1) / kBlockPages;
      for (uint64_t first = 0; first < end; first += zone_pages) {
        zones_.push_back({.memory = {.region = static_cast<RegionId>(region),
                                     .pages = {first, std::min(zone_pages, end - first)}}});
      }
    }
    heat_.assign(blocks_, 0);
    heat_epochs_.assign(blocks_, 0);
  }

  // How much of each zone is neither hole nor zeros, by samples.
  absl::Status LookIntoContents() {
    for (MeterZone& zone : zones_) {
      PageRuns populated;
      RETURN_IF_ERROR(guest_.PopulatedRuns(zone.memory, populated));
      const uint64_t pages = PagesIn(populated).value();
      const uint64_t samples = std::min(pages, kZeroSamples);
      const std::byte* const memory = guest_.regions()[zone.memory.region].address;
      uint64_t full = 0;
      for (uint64_t i = 0; i < samples && memory != nullptr; ++i) {
        uint64_t index = pages * i / samples;  // of the populated pages
        for (const PageRun& run : populated) {
          if (index >= run.count) {
            index -= run.count;
            continue;
          }
          if (!IsZeroPage(memory + ((run.first + index) << kPageShift))) ++full;
          break;
        }
      }
      zone.contents = PageCount(memory == nullptr || samples == 0 ? pages : pages * full / samples);
    }
    return absl::OkStatus();
  }

  void SetIntervals(double epoch_ms) {
    for (double decade = 10; decade < epoch_ms; decade *= 10) {
      for (const double step : {1.0, 2.0, 5.0}) {
        if (decade * step < 0.9 * epoch_ms) intervals_ms_.push_back(decade * step);
      }
    }
    // The last quarters tell how the curve goes on.
    for (const double part : {0.5, 0.75, 0.98}) intervals_ms_.push_back(part * epoch_ms);
    std::sort(intervals_ms_.begin(), intervals_ms_.end());
    const auto near = [](double a, double b) { return b < 1.05 * a; };
    intervals_ms_.erase(std::unique(intervals_ms_.begin(), intervals_ms_.end(), near),
                        intervals_ms_.end());
    for (MeterZone& zone : zones_) {
      zone.written.assign(intervals_ms_.size(), 0);
      zone.watched_for.assign(intervals_ms_.size(), 0);
    }
    blocks_within_.assign(intervals_ms_.size(), 0);
    blocks_share_.assign(intervals_ms_.size(), 0);
  }

  // Draws lots; returns the part of the memory that is watched.
  double ChooseWatched(uint32_t epoch, double share) {
    uint64_t watched = 0;
    for (MeterZone& zone : zones_) {
      zone.watched.clear();
      zone.watched_pages = 0;
      const PageRun all = zone.memory.pages;
      for (uint64_t first = all.first; first < all.end(); first += chunk_pages_) {
        const uint64_t block = first_block_[zone.memory.region] + first / kBlockPages;
        if (share < 1 && Lot(block, epoch) >= share) continue;
        const uint64_t count = std::min(chunk_pages_, all.end() - first);
        if (!zone.watched.empty() && zone.watched.back().pages.end() == first) {
          zone.watched.back().pages.count += count;
        } else {
          zone.watched.push_back({.region = zone.memory.region, .pages = {first, count}});
        }
        zone.watched_pages += count;
      }
      watched += zone.watched_pages;
    }
    return static_cast<double>(watched) / static_cast<double>(std::max(pages_, uint64_t{1}));
  }

  absl::StatusOr<double> Epoch(uint32_t number, double wanted_share, double epoch_ms) {
    const double share = ChooseWatched(number, wanted_share);
    const double begin = clock_.NowMs();
    for (const MeterZone& zone : zones_) {
      for (const Slice& slice : zone.watched) {
        PageRuns runs;
        RETURN_IF_ERROR(guest_.CollectDirty(slice, runs));
      }
    }
    const double start = (begin + clock_.NowMs()) / 2;
    DirtyEpoch seen{.start_ms = start, .share = share};
    std::vector<Look> looks;
    size_t next = 0;
    double not_before = 0;
    for (;;) {
      const double at =
          next < std::size(kFirstLooksMs)
              ? kFirstLooksMs[next]
              : kLookEveryMs * static_cast<double>(next - std::size(kFirstLooksMs) + 3);
      ++next;
      if (at > epoch_ms) break;
      if (at < not_before) continue;
      RETURN_IF_ERROR(clock_.SleepUntil(start + at));
      const double before = clock_.NowMs();
      ASSIGN_OR_RETURN(Look look, LookNow(at == kHotIntervalMs));
      const double after = clock_.NowMs();
      look.ms = (before + after) / 2 - start;
      not_before = after - start + kRest * (after - before);
      double pages = 0;
      for (const double written : look.written) pages += written;
      if (share > 0 && (seen.samples.empty() || look.ms > seen.samples.back().ms)) {
        seen.samples.push_back({.ms = look.ms, .pages = pages / share});
        looks.push_back(std::move(look));
      }
      if (progress_ != nullptr) {
        progress_(std::min(1.0, (number + at / epoch_ms) / std::max(options_.epochs, 1U)));
      }
    }
    RETURN_IF_ERROR(clock_.SleepUntil(start + epoch_ms));
    NoteLooks(looks, share);
    const double last = seen.samples.empty() ? 0 : seen.samples.back().pages;
    faults_ += last * share;
    spent_ms_ += epoch_ms;
    if (number > 0 || options_.epochs <= 1) {
      shares_ += share;
      ++later_epochs_;
    }
    timeline_.push_back(std::move(seen));
    return last;
  }

  absl::StatusOr<Look> LookNow(bool note_heat) {
    Look look;
    for (const MeterZone& zone : zones_) {
      double pages = 0;
      for (const Slice& slice : zone.watched) {
        PageRuns runs;
        RETURN_IF_ERROR(guest_.PeekDirty(slice, runs));
        pages += static_cast<double>(PagesIn(runs).value());
        look.blocks += static_cast<double>(BlocksIn(runs));
        if (note_heat) NoteHeat(slice, runs);
      }
      look.written.push_back(pages);
    }
    return look;
  }

  void NoteHeat(const Slice& slice, const PageRuns& runs) {
    const uint64_t base = first_block_[slice.region];
    for (uint64_t page = slice.pages.first; page < slice.pages.end(); page += kBlockPages) {
      ++heat_epochs_[base + page / kBlockPages];
    }
    for (PageRun run : runs) {
      while (run.count > 0) {
        const uint64_t block = run.first / kBlockPages;
        const uint64_t here = std::min(run.count, (block + 1) * kBlockPages - run.first);
        heat_[base + block] += static_cast<double>(here);
        run.first += here;
        run.count -= here;
      }
    }
  }

  // Adds what an epoch saw to the curves, at the moments that all epochs have in common.
  void NoteLooks(const std::vector<Look>& looks, double share) {
    Look from{.written = std::vector<double>(zones_.size(), 0)};
    size_t interval = 0;
    for (const Look& to : looks) {
      for (; interval < intervals_ms_.size() && intervals_ms_[interval] <= to.ms; ++interval) {
        const double part = (intervals_ms_[interval] - from.ms) / (to.ms - from.ms);
        for (size_t i = 0; i < zones_.size(); ++i) {
          zones_[i].written[interval] += from.written[i] + part * (to.written[i] - from.written[i]);
          zones_[i].watched_for[interval] += static_cast<double>(zones_[i].watched_pages);
        }
        blocks_within_[interval] += from.blocks + part * (to.blocks - from.blocks);
        blocks_share_[interval] += share;
      }
      from = to;
    }
  }

  WorkingSet Result() {
    WorkingSet result;
    DirtyTrace& trace = result.trace;
    trace.guest = guest_.description().name;
    for (size_t i = 0; i < intervals_ms_.size(); ++i) {
      if (blocks_share_[i] <= 0) continue;  // too short for looks at so much memory
      trace.intervals_ms.push_back(intervals_ms_[i]);
      trace.blocks.push_back(blocks_within_[i] / blocks_share_[i]);
    }
    if (trace.intervals_ms.empty()) {  // nor one look was in time: nothing is known
      trace.intervals_ms.push_back(intervals_ms_.back());
      trace.blocks.push_back(0);
    }
    for (const MeterZone& zone : zones_) trace.zones.push_back(ZoneOf(zone));
    trace.timeline = std::move(timeline_);
    trace.activity = ActivityIn(trace);
    trace.hottest = Hottest();
    result.share = later_epochs_ > 0 ? shares_ / later_epochs_ : 1;
    result.faults = faults_;
    const double cpu_ms = spent_ms_ * std::max<double>(guest_.description().vcpus, 1);
    result.cost = cpu_ms > 0 ? faults_ * kFaultMicroseconds / 1000 / cpu_ms : 0;
    trace.origin = fmt::format("measured for {:.1f} s in {} epochs, {:.0f} % of the memory watched",
                               spent_ms_ / 1000, trace.timeline.size(), 100 * result.share);
    return result;
  }

  [[nodiscard]] DirtyZone ZoneOf(const MeterZone& zone) const {
    const auto memory = static_cast<double>(zone.memory.pages.count);
    DirtyZone result{.memory = PageCount(zone.memory.pages.count), .contents = zone.contents};
    double highest = 0;
    for (size_t i = 0; i < intervals_ms_.size(); ++i) {
      if (blocks_share_[i] <= 0) continue;
      // A zone that no lot fell on is as the others.
      double density = 0;
      if (zone.watched_for[i] > 0) {
        density = zone.written[i] / zone.watched_for[i];
      } else {
        double written = 0;
        double watched = 0;
        for (const MeterZone& other : zones_) {
          written += other.written[i];
          watched += other.watched_for[i];
        }
        density = watched > 0 ? written / watched : 0;
      }
      highest = std::clamp(density * memory, highest, memory);
      result.written.push_back(highest);
    }
    if (result.written.empty()) result.written.push_back(0);
    return result;
  }

  // How busy the guest was between two looks: the pages it found, to those it finds on average at
  // that point of an epoch.
  static std::vector<Activity> ActivityIn(const DirtyTrace& trace) {
    const GrowthCurve curve = trace.Curve();
    std::vector<Activity> activities;
    double excess = 0;
    double work = 0;
    double time = 0;
    for (const DirtyEpoch& epoch : trace.timeline) {
      DirtySample from;
      for (const DirtySample& to : epoch.samples) {
        if (to.ms - from.ms < 0.8 * kLookEveryMs) continue;
        const double expected = curve.At(to.ms / 1000) - curve.At(from.ms / 1000);
        const double found = std::max(to.pages - from.pages, 0.0);
        double busy = 1;
        // Of a small part of the memory little is seen, and much is chance.
        if (expected * epoch.share >= kTellingPages) {
          busy = found / expected;
          excess += (found - expected) * (found - expected) * epoch.share / expected;
        }
        activities.push_back({.ms = to.ms - from.ms, .busy = busy});
        work += busy * (to.ms - from.ms);
        time += to.ms - from.ms;
        from = to;
      }
    }
    // Chance alone gives an excess of 1 for each. Up to twenty times that is a steady guest on a
    // noisy host.
    if (work <= 0 || excess < 20 * static_cast<double>(activities.size())) return {};
    for (Activity& activity : activities) activity.busy *= time / work;
    return activities;
  }

  [[nodiscard]] std::vector<HotBlock> Hottest() const {
    std::vector<HotBlock> hottest;
    for (size_t region = 0; region < guest_.regions().size(); ++region) {
      const uint64_t pages = guest_.regions()[region].pages();
      for (uint64_t first = 0; first < pages; first += kBlockPages) {
        const uint64_t block = first_block_[region] + first / kBlockPages;
        if (heat_[block] <= 0) continue;
        hottest.push_back({.region = guest_.regions()[region].description.name,
                           .first_page = first,
                           .pages = std::min(kBlockPages, pages - first),
                           .written = heat_[block] / heat_epochs_[block]});
      }
    }
    const auto hotter = [](const HotBlock& a, const HotBlock& b) { return a.written > b.written; };
    std::stable_sort(hottest.begin(), hottest.end(), hotter);
    if (hottest.size() > kHottest) hottest.resize(kHottest);
    return hottest;
  }

  SourceGuest& guest_;
  const MeterOptions& options_;
  MeterClock& clock_;
  const std::function<void(double)>& progress_;
  uint64_t pages_ = 0;
  uint64_t chunk_pages_ = 0;
  uint64_t blocks_ = 0;
  std::vector<uint64_t> first_block_;  // by region
  std::vector<MeterZone> zones_;
  std::vector<double> intervals_ms_;
  std::vector<double> blocks_within_;  // by interval, and the shares they are of
  std::vector<double> blocks_share_;
  std::vector<double> heat_;  // by block: pages written within kHotIntervalMs, over all epochs
  std::vector<uint32_t> heat_epochs_;
  std::vector<DirtyEpoch> timeline_;
  double faults_ = 0;
  double spent_ms_ = 0;
  double shares_ = 0;
  uint32_t later_epochs_ = 0;
};

}  // namespace

absl::Status RealMeterClock::SleepUntil(double ms) {
  for (;;) {
    RETURN_IF_ERROR(cancel_.status());
    const double left = ms - NowMs();
    if (left <= 0) return absl::OkStatus();
    pollfd wish{.fd = cancel_.fd(), .events = POLLIN};
    const auto nanoseconds = static_cast<int64_t>(std::min(left, 1000.0) * 1e6);
    const timespec time{.tv_sec = nanoseconds / 1'000'000'000,
                        .tv_nsec = nanoseconds % 1'000'000'000};
    (void)::ppoll(&wish, 1, &time, nullptr);
  }
}

absl::StatusOr<WorkingSet> MeasureWorkingSet(SourceGuest& guest, const MeterOptions& options,
                                             MeterClock& clock,
                                             const std::function<void(double)>& progress) {
  if (guest.sees_writes_only_when_quiesced()) {
    return absl::FailedPreconditionError(
        "this kernel tracks writes by soft-dirty bits: every look would stop the guest. Measuring "
        "a "
        "guest needs Linux 6.7 or newer");
  }
  return Meter(guest, options, clock, progress).Measure();
}

}  // namespace ramferry
