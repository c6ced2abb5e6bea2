#include "engine/precopy.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

#include "base/cpu_set.h"
#include "base/status.h"
#include "engine/image_digest.h"

namespace ramferry {
namespace {

WorkerLayout EqualShares(std::span<const MappedRegion> regions, size_t workers) {
  WorkerLayout layout{.slices = CutIntoSlices(regions, static_cast<uint32_t>(workers))};
  const size_t slices = layout.slices.size();
  for (size_t i = 0; i < workers; ++i) {
    layout.shares.push_back(slices * (i + 1) / workers - slices * i / workers);
  }
  layout.steal = NearestFirst(std::vector<int>(workers, -1), [](int, int) { return uint64_t{0}; });
  return layout;
}

std::vector<uint64_t> PagesOf(std::span<const MappedRegion> regions) {
  std::vector<uint64_t> pages;
  for (const MappedRegion& region : regions) pages.push_back(region.pages());
  return pages;
}

// A long round looks so far ahead for pages that are dirty again: some milliseconds of sending.
constexpr uint64_t kLookPages = MiB(8).value() / kPageBytes;
// How soon a cancellation is seen by a round that pauses.
constexpr std::chrono::milliseconds kLookUp{10};

PageCount Sum(const std::vector<ShippedPages>& shipped,
              std::atomic<uint64_t> ShippedPages::*counter) {
  PageCount pages;
  for (const ShippedPages& one : shipped) pages += PageCount((one.*counter).load());
  return pages;
}

}  // namespace

Precopy::Precopy(SourceGuest& guest, PageChannels channels, ReplaceChannels replace,
                 const MigrationOptions& options, const Cancellation& cancel, WorkerLayout layout)
    : guest_(guest),
      replace_(std::move(replace)),
      landed_(guest.regions()),
      rate_(options.bandwidth),
      cancel_(cancel),
      shipped_(channels.size()),
      pool_(layout.slices.empty() ? EqualShares(guest.regions(), channels.size())
                                  : std::move(layout)),
      hot_(PagesOf(guest.regions())),
      scratch_(pool_.workers()),
      guest_pages_(PagesIn(guest.regions())),
      waiting_(options.bandwidth.value() != 0 || options.least_bandwidth.value() != 0
                   ? Waiting::kSleep
                   : Waiting::kAdapt) {
  for (const MappedRegion& region : guest.regions()) {
    due_ += PagesCovering(region.description.populated);
  }
  UseChannels(std::move(channels));
}

Precopy::~Precopy() {
  Abort();
}

void Precopy::Abort() {
  const std::lock_guard lock(mutex_);
  for (const auto& channel : channels_) channel->Abort();
}

void Precopy::UseChannels(PageChannels channels) {
  shippers_.clear();
  for (size_t i = 0; i < channels.size(); ++i) {
    channels[i]->SetWaiting(waiting_);
    const BoundForAWhile beside_its_worker(pool_.CpusOf(i));
    shippers_.push_back(
        std::make_unique<PageShipper>(guest_, *channels[i], landed_, rate_, cancel_, shipped_[i]));
  }
  const std::lock_guard lock(mutex_);
  for (const auto& old : channels_) wire_bytes_before_ += old->stats().wire;
  channels_ = std::move(channels);
}

absl::Status Precopy::GoOnOverOtherChannels(const absl::Status& why) {
  std::vector<RegionRuns> again;
  for (const auto& shipper : shippers_) {
    again.insert(again.end(), shipper->unconfirmed().begin(), shipper->unconfirmed().end());
  }
  Abort();
  ASSIGN_OR_RETURN(PageChannels channels, replace_(why));
  if (channels.size() != shippers_.size()) {
    return absl::InternalError("another transport gave another number of channels");
  }
  UseChannels(std::move(channels));
  for (const RegionRuns& part : again) {
    // Whether a page landed, or was cleared, nobody knows: neither contents nor zeros may be left
    // out.
    for (const PageRun& run : part.runs) landed_.Set(part.region, run);
    RETURN_IF_ERROR(shippers_[0]->ShipCollected(part.region, part.runs));
  }
  return shippers_[0]->Confirm();
}

std::vector<PageCount> Precopy::PagesByWorker() const {
  std::vector<PageCount> pages;
  for (const ShippedPages& one : shipped_) pages.emplace_back(one.sent.load());
  return pages;
}

ByteCount Precopy::wire_bytes() const {
  ByteCount bytes = wire_bytes_before_;
  for (const auto& channel : channels_) bytes += channel->stats().wire;
  return bytes;
}

absl::StatusOr<RoundReport> Precopy::Round(const RoundKind& kind) {
  return Send(kind, guest_.needs_quiesced_collection());
}

absl::StatusOr<RoundReport> Precopy::FinalRound() {
  rate_.SetRate(ByteCount(0));
  waiting_ = Waiting::kPoll;
  for (const auto& channel : channels_) channel->SetWaiting(waiting_);
  auto report = Send({}, /*quiesce=*/false);
  if (report.ok()) report->stopped = true;
  return report;
}

absl::Status Precopy::Collect(const Slice& slice, const RoundKind& kind, bool quiesced,
                              Scratch& scratch) {
  scratch.spans.clear();
  scratch.dirty.clear();
  hot_.BeginPass(slice, kind.hold, scratch.spans);
  // A guest that is collected all at once loses nothing by collecting what is held, and shows what
  // has cooled.
  if (quiesced) scratch.spans.assign(1, slice.pages);
  for (const PageRun& span : scratch.spans) {
    const absl::Status status = guest_.CollectDirty({slice.region, span}, scratch.dirty);
    if (!status.ok()) {
      collection_failed_ = true;
      return status;
    }
  }
  if (kind.by == CollectBy::kPopulated) {
    // The collection was to start the tracking: what is written from here on comes again.
    scratch.dirty.clear();
    if (!quiesced) RETURN_IF_ERROR(guest_.PopulatedRuns(slice, scratch.dirty));
  }
  hot_.Collected(slice, scratch.spans, scratch.dirty,
                 /*judge=*/kind.hold && kind.by == CollectBy::kDirty);
  return absl::OkStatus();
}

absl::Status Precopy::CollectQuiesced(const RoundKind& kind) {
  const Deadline start = Clock::now();
  RETURN_IF_ERROR(guest_.Quiesce());
  absl::Status status;
  for (size_t i = 0; i < pool_.slices().size() && status.ok(); ++i) {
    status = Collect(pool_.slices()[i], kind, /*quiesced=*/true, scratch_[0]);
  }
  status.Update(guest_.Unquiesce());
  collect_ms_ = MillisecondsBetween(start, Clock::now());
  RETURN_IF_ERROR(status);
  if (kind.by == CollectBy::kPopulated) {
    for (const Slice& slice : pool_.slices()) {
      PageRuns populated;
      RETURN_IF_ERROR(guest_.PopulatedRuns(slice, populated));
      hot_.Collected(slice, {slice.pages}, populated, /*judge=*/false);
    }
  }
  return absl::OkStatus();
}

absl::Status Precopy::SendAllOwed(const Slice& slice, uint32_t worker) {
  PageRuns& owed = scratch_[worker].owed;
  owed.clear();
  hot_.TakeAllOwed(slice, owed);
  return owed.empty() ? absl::OkStatus() : shippers_[worker]->ShipCollected(slice.region, owed);
}

absl::Status Precopy::SendQuiet(const Slice& slice, uint32_t worker) {
  Scratch& scratch = scratch_[worker];
  for (uint64_t first = slice.pages.first; first < slice.pages.end(); first += kLookPages) {
    const Slice part{slice.region, {first, std::min(kLookPages, slice.pages.end() - first)}};
    scratch.dirty.clear();
    scratch.owed.clear();
    RETURN_IF_ERROR(guest_.PeekDirty(part, scratch.dirty));
    skipped_ += hot_.TakeOwed(part, scratch.dirty, scratch.owed).value();
    if (scratch.owed.empty()) continue;
    RETURN_IF_ERROR(shippers_[worker]->ShipCollected(slice.region, scratch.owed));
  }
  return absl::OkStatus();
}

void Precopy::SetWatch(std::function<void(const RoundProgress&)> watch) {
  pool_.SetWatch([this, watch = std::move(watch)] { watch(Progress()); });
}

RoundProgress Precopy::Progress() const {
  const PageCount sent = Sum(shipped_, &ShippedPages::sent);
  const PageCount handled =
      sent + Sum(shipped_, &ShippedPages::zero) + PageCount(skipped_) - round_.handled_before;
  const bool counted = round_.due.value() > 0;
  const double part = static_cast<double>(counted ? handled.value() : round_.looked_at.load());
  const double whole = static_cast<double>((counted ? round_.due : guest_pages_).value());
  return {.number = rounds_,
          .pages = sent - round_.sent_before,
          .ms = MillisecondsBetween(round_.start, Clock::now()),
          .done = whole > 0 ? std::min(part / whole, 1.0) : 0};
}

absl::Status Precopy::Pause(std::chrono::milliseconds time) const {
  for (const Deadline end = In(time); Clock::now() < end;) {
    RETURN_IF_ERROR(cancel_.status());
    std::this_thread::sleep_for(std::min<Clock::duration>(end - Clock::now(), kLookUp));
  }
  return cancel_.status();
}

absl::StatusOr<RoundReport> Precopy::Send(const RoundKind& kind, bool quiesce) {
  RoundReport report{.number = ++rounds_,
                     .idle_ms = static_cast<double>(kind.pause.count()),
                     .rate_limit = rate_.rate()};
  const PageCount sent_before = Sum(shipped_, &ShippedPages::sent);
  const PageCount zero_before = Sum(shipped_, &ShippedPages::zero);
  const uint64_t skipped_before = skipped_;
  const ByteCount bytes_before = wire_bytes();
  if (!kind.hold && holding_) Thaw();
  holding_ = kind.hold;
  const Deadline start = Clock::now();
  round_.start = start;
  round_.sent_before = sent_before;
  round_.handled_before = sent_before + zero_before + PageCount(skipped_before);
  round_.due = due_;
  round_.looked_at = 0;
  if (quiesce) {
    RETURN_IF_ERROR(CollectQuiesced(kind));
    report.quiesced_ms = collect_ms_;
  } else if (kind.is_long) {
    RETURN_IF_ERROR(pool_.Run([&](uint32_t worker, size_t index) {
      return Collect(pool_.slices()[index], kind, /*quiesced=*/false, scratch_[worker]);
    }));
  }
  if (kind.pause.count() > 0) RETURN_IF_ERROR(Pause(kind.pause));
  const auto job = [&](uint32_t worker, size_t index) -> absl::Status {
    const Slice& slice = pool_.slices()[index];
    if (kind.is_long) {
      RETURN_IF_ERROR(SendQuiet(slice, worker));
    } else {
      if (!quiesce) {
        RETURN_IF_ERROR(Collect(slice, kind, /*quiesced=*/false, scratch_[worker]));
      }
      RETURN_IF_ERROR(SendAllOwed(slice, worker));
    }
    round_.looked_at.fetch_add(slice.pages.count, std::memory_order_relaxed);
    return absl::OkStatus();
  };
  const auto finish = [this](uint32_t worker) { return shippers_[worker]->Confirm(); };
  absl::Status status = pool_.Run(job, finish);
  while (!status.ok()) {
    const bool by_channel =
        std::any_of(shippers_.begin(), shippers_.end(),
                    [](const auto& shipper) { return shipper->channel_failed(); });
    // What was collected of a slice when its collection failed, nobody knows.
    if (!by_channel || collection_failed_ || cancel_.requested()) return status;
    RETURN_IF_ERROR(GoOnOverOtherChannels(status));
    // What a worker had taken of a slice was sent again just now; the rest of a slice that is sent
    // in parts is still owed.
    status = pool_.Run(job, finish,
                       kind.is_long ? WorkerPool::From::kStart : WorkerPool::From::kWhereItFailed);
  }
  report.ms = MillisecondsBetween(start, Clock::now());
  report.pages = Sum(shipped_, &ShippedPages::sent) - sent_before;
  report.zero_pages = Sum(shipped_, &ShippedPages::zero) - zero_before;
  report.skipped_pages = PageCount(skipped_ - skipped_before);
  report.bytes = wire_bytes() - bytes_before;
  return report;
}

absl::StatusOr<DirtyCount> Precopy::CountDirty() {
  std::atomic<uint64_t> pages{0};
  std::atomic<uint64_t> held{0};
  const Deadline start = Clock::now();
  RETURN_IF_ERROR(pool_.Run([&](uint32_t worker, size_t index) -> absl::Status {
    const Slice& slice = pool_.slices()[index];
    PageRuns& dirty = scratch_[worker].dirty;
    dirty.clear();
    RETURN_IF_ERROR(guest_.PeekDirty(slice, dirty));
    pages.fetch_add(hot_.ToSend(slice, dirty).value(), std::memory_order_relaxed);
    held.fetch_add(hot_.Held(slice).value(), std::memory_order_relaxed);
    return absl::OkStatus();
  }));
  // Looking costs what collecting costs, but where that needs the guest to stand still.
  if (!guest_.needs_quiesced_collection()) collect_ms_ = MillisecondsBetween(start, Clock::now());
  const DirtyCount count{.pages = PageCount(pages.load()), .held = PageCount(held.load())};
  due_ = count.pages - count.held;
  return count;
}

void Precopy::Thaw() {
  holding_ = false;
  for (const Slice& slice : pool_.slices()) hot_.Thaw(slice);
}

absl::StatusOr<std::vector<SliceDigest>> Precopy::Digests() {
  std::mutex mutex;
  std::vector<SliceDigest> digests;
  const auto job = [&](uint32_t worker, size_t index) -> absl::Status {
    const Slice& slice = pool_.slices()[index];
    PageRuns populated;
    RETURN_IF_ERROR(guest_.PopulatedRuns(slice, populated));
    RETURN_IF_ERROR(shippers_[worker]->ClearHoles(slice, populated));
    ASSIGN_OR_RETURN(std::string digest, DigestSlice(guest_.regions()[slice.region], populated));
    const std::lock_guard lock(mutex);
    digests.push_back({.slice = slice, .sha256 = std::move(digest)});
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(pool_.Run(job, [this](uint32_t worker) { return shippers_[worker]->Confirm(); }));
  return digests;
}

}  // namespace ramferry
