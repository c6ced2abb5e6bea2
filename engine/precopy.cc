#include "engine/precopy.h"

#include <chrono>
#include <mutex>
#include <utility>

#include "base/status.h"
#include "engine/image_digest.h"

namespace ramferry {
namespace {

// For the peer to confirm what it was sent. It may have a disk to swap to, and a slow link to
// drain.
constexpr std::chrono::seconds kFlushTime{20};

}  // namespace

Precopy::Precopy(SourceGuest& guest, std::vector<std::unique_ptr<PageChannel>> channels,
                 const MigrationOptions& options, const Cancellation& cancel)
    : guest_(guest),
      channels_(std::move(channels)),
      landed_(guest.regions()),
      rate_(options.bandwidth),
      cancel_(cancel),
      pool_(static_cast<uint32_t>(channels_.size()),
            CutIntoSlices(guest.regions(), static_cast<uint32_t>(channels_.size()))) {
  for (const auto& channel : channels_) {
    shippers_.push_back(
        std::make_unique<PageShipper>(guest_, *channel, landed_, rate_, cancel_, shipped_));
  }
}

Precopy::~Precopy() {
  Abort();
}

void Precopy::Abort() {
  for (const auto& channel : channels_) channel->Abort();
}

ByteCount Precopy::wire_bytes() const {
  ByteCount bytes;
  for (const auto& channel : channels_) bytes += channel->stats().wire;
  return bytes;
}

absl::StatusOr<RoundReport> Precopy::Round(CollectBy by) {
  return Send(by, guest_.needs_quiesced_collection());
}

absl::StatusOr<RoundReport> Precopy::FinalRound() {
  rate_.SetRate(ByteCount(0));
  auto report = Send(CollectBy::kDirty, /*quiesce=*/false);
  if (report.ok()) report->stopped = true;
  return report;
}

absl::Status Precopy::CollectQuiesced(CollectBy by) {
  collected_.assign(pool_.slices().size(), {});
  RETURN_IF_ERROR(guest_.Quiesce());
  absl::Status status;
  for (size_t i = 0; i < collected_.size() && status.ok(); ++i) {
    status = guest_.CollectDirty(pool_.slices()[i], collected_[i]);
  }
  status.Update(guest_.Unquiesce());
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
  const uint64_t sent_before = shipped_.sent.load();
  const uint64_t zero_before = shipped_.zero.load();
  const ByteCount bytes_before = wire_bytes();
  const Deadline start = Clock::now();
  if (quiesce) RETURN_IF_ERROR(CollectQuiesced(by));
  RETURN_IF_ERROR(pool_.Run(
      [&](uint32_t worker, size_t index) {
        PageShipper& shipper = *shippers_[worker];
        const Slice& slice = pool_.slices()[index];
        if (!quiesce) return shipper.Ship(slice, by);
        return shipper.ShipCollected(slice.region, collected_[index]);
      },
      [this](uint32_t worker) { return channels_[worker]->Flush(In(kFlushTime)); }));
  report.ms = MillisecondsBetween(start, Clock::now());
  report.pages = PageCount(shipped_.sent.load() - sent_before);
  report.zero_pages = PageCount(shipped_.zero.load() - zero_before);
  report.bytes = wire_bytes() - bytes_before;
  return report;
}

absl::StatusOr<PageCount> Precopy::CountDirty() {
  std::atomic<uint64_t> pages{0};
  RETURN_IF_ERROR(pool_.Run([&](uint32_t /*worker*/, size_t index) -> absl::Status {
    const Slice& slice = pool_.slices()[index];
    PageRuns runs;
    RETURN_IF_ERROR(guest_.PeekDirty(slice, runs));
    pages.fetch_add(PagesIn(runs).value(), std::memory_order_relaxed);
    return absl::OkStatus();
  }));
  return PageCount(pages.load());
}

absl::StatusOr<std::vector<SliceDigest>> Precopy::Digests() {
  std::mutex mutex;
  std::vector<SliceDigest> digests;
  RETURN_IF_ERROR(pool_.Run([&](uint32_t /*worker*/, size_t index) -> absl::Status {
    const Slice& slice = pool_.slices()[index];
    PageRuns populated;
    RETURN_IF_ERROR(guest_.PopulatedRuns(slice, populated));
    ASSIGN_OR_RETURN(std::string digest, DigestSlice(guest_.regions()[slice.region], populated));
    const std::lock_guard lock(mutex);
    digests.push_back({.slice = slice, .sha256 = std::move(digest)});
    return absl::OkStatus();
  }));
  return digests;
}

}  // namespace ramferry
