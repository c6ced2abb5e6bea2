#include "engine/precopy.h"

#include <algorithm>
#include <mutex>
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
      waiting_(options.bandwidth.value() != 0 ? Waiting::kSleep : Waiting::kAdapt) {
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

absl::StatusOr<RoundReport> Precopy::Round(CollectBy by) {
  return Send(by, guest_.needs_quiesced_collection());
}

absl::StatusOr<RoundReport> Precopy::FinalRound() {
  rate_.SetRate(ByteCount(0));
  waiting_ = Waiting::kPoll;
  for (const auto& channel : channels_) channel->SetWaiting(waiting_);
  auto report = Send(CollectBy::kDirty, /*quiesce=*/false);
  if (report.ok()) report->stopped = true;
  return report;
}

absl::Status Precopy::CollectQuiesced(CollectBy by) {
  const Deadline start = Clock::now();
  collected_.assign(pool_.slices().size(), {});
  RETURN_IF_ERROR(guest_.Quiesce());
  absl::Status status;
  for (size_t i = 0; i < collected_.size() && status.ok(); ++i) {
    status = guest_.CollectDirty(pool_.slices()[i], collected_[i]);
  }
  status.Update(guest_.Unquiesce());
  collect_ms_ = MillisecondsBetween(start, Clock::now());
  RETURN_IF_ERROR(status);
  if (by == CollectBy::kPopulated) {
    for (size_t i = 0; i < collected_.size(); ++i) {
      collected_[i].clear();
      RETURN_IF_ERROR(guest_.PopulatedRuns(pool_.slices()[i], collected_[i]));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<RoundReport> Precopy::Send(CollectBy by, bool quiesce) {
  RoundReport report{.number = ++rounds_};
  const PageCount sent_before = Sum(shipped_, &ShippedPages::sent);
  const PageCount zero_before = Sum(shipped_, &ShippedPages::zero);
  const ByteCount bytes_before = wire_bytes();
  const Deadline start = Clock::now();
  if (quiesce) {
    RETURN_IF_ERROR(CollectQuiesced(by));
    report.quiesced_ms = collect_ms_;
  }
  const auto job = [&](uint32_t worker, size_t index) {
    PageShipper& shipper = *shippers_[worker];
    const Slice& slice = pool_.slices()[index];
    if (!quiesce) return shipper.Ship(slice, by);
    return shipper.ShipCollected(slice.region, collected_[index]);
  };
  const auto finish = [this](uint32_t worker) { return shippers_[worker]->Confirm(); };
  absl::Status status = pool_.Run(job, finish);
  while (!status.ok()) {
    const bool by_channel =
        std::any_of(shippers_.begin(), shippers_.end(),
                    [](const auto& shipper) { return shipper->channel_failed(); });
    if (!by_channel || cancel_.requested()) return status;
    RETURN_IF_ERROR(GoOnOverOtherChannels(status));
    status = pool_.Run(job, finish, WorkerPool::From::kWhereItFailed);
  }
  report.ms = MillisecondsBetween(start, Clock::now());
  report.pages = Sum(shipped_, &ShippedPages::sent) - sent_before;
  report.zero_pages = Sum(shipped_, &ShippedPages::zero) - zero_before;
  report.bytes = wire_bytes() - bytes_before;
  return report;
}

absl::StatusOr<PageCount> Precopy::CountDirty() {
  std::atomic<uint64_t> pages{0};
  const Deadline start = Clock::now();
  RETURN_IF_ERROR(pool_.Run([&](uint32_t /*worker*/, size_t index) -> absl::Status {
    const Slice& slice = pool_.slices()[index];
    PageRuns runs;
    RETURN_IF_ERROR(guest_.PeekDirty(slice, runs));
    pages.fetch_add(PagesIn(runs).value(), std::memory_order_relaxed);
    return absl::OkStatus();
  }));
  // Looking costs what collecting costs, but where that needs the guest to stand still.
  if (!guest_.needs_quiesced_collection()) collect_ms_ = MillisecondsBetween(start, Clock::now());
  return PageCount(pages.load());
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
