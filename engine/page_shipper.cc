#include "engine/page_shipper.h"

#include <algorithm>
#include <chrono>

#include "base/status.h"
#include "engine/zero_scan.h"

namespace ramferry {
namespace {

// Enough for one efficient system call or doorbell, little enough to stay in the caches and to let
// a rate limit or a cancellation work in between.
constexpr uint64_t kBatchBytes = 1 << 20;

// A dirty run at least this long may be memory that the guest gave back (a balloon, hole punched):
// looking costs two system calls, not looking would populate the holes by reading them.
constexpr uint64_t kLongRun = 512;

// What a failed channel would make us send again, at most: 1 GiB a worker.
constexpr uint64_t kMostUnconfirmed = GiB(1).value() / kPageBytes;

// For the peer to confirm what it was sent. It may have a disk to swap to, and a slow link to
// drain.
constexpr std::chrono::seconds kConfirmTime{20};

}  // namespace

PageShipper::PageShipper(SourceGuest& guest, PageChannel& channel, LandedMap& landed,
                         TokenBucket& rate, const Cancellation& cancel, ShippedPages& shipped)
    : guest_(guest),
      channel_(channel),
      landed_(landed),
      rate_(rate),
      cancel_(cancel),
      shipped_(shipped) {
  // All at once: who makes the shipper says where its memory is, not who uses it first.
  writes_.reserve(channel.capabilities().batch);
  zeros_.reserve(channel.capabilities().batch);
}

absl::Status PageShipper::ShipCollected(RegionId region, const PageRuns& runs) {
  const MappedRegion& mapped = guest_.regions()[region];
  // Noted before anything is sent: the dirty bits of these pages are gone already.
  unconfirmed_.push_back({region, runs});
  for (const PageRun& run : runs) {
    unconfirmed_pages_ += run.count;
    if (run.count < kLongRun) {
      RETURN_IF_ERROR(ShipRun(mapped, region, run));
      continue;
    }
    populated_.clear();
    RETURN_IF_ERROR(guest_.PopulatedRuns({region, run}, populated_));
    uint64_t position = run.first;
    for (const PageRun& data : populated_) {
      RETURN_IF_ERROR(AddZero(region, {position, data.first - position}));
      RETURN_IF_ERROR(ShipRun(mapped, region, data));
      position = data.end();
    }
    RETURN_IF_ERROR(AddZero(region, {position, run.end() - position}));
  }
  RETURN_IF_ERROR(SendBatch());
  return unconfirmed_pages_ > kMostUnconfirmed ? Confirm() : absl::OkStatus();
}

absl::Status PageShipper::ClearHoles(const Slice& slice, const PageRuns& populated) {
  uint64_t position = slice.pages.first;
  for (const PageRun& data : populated) {
    RETURN_IF_ERROR(AddZero(slice.region, {position, data.first - position}));
    position = data.end();
  }
  RETURN_IF_ERROR(AddZero(slice.region, {position, slice.pages.end() - position}));
  return SendBatch();
}

absl::Status PageShipper::Confirm() {
  RETURN_IF_ERROR(FromChannel(channel_.Flush(In(kConfirmTime))));
  unconfirmed_.clear();
  unconfirmed_pages_ = 0;
  return absl::OkStatus();
}

absl::Status PageShipper::FromChannel(absl::Status status) {
  if (!status.ok()) channel_failed_ = true;
  return status;
}

absl::Status PageShipper::ShipRun(const MappedRegion& region, RegionId id, PageRun run) {
  while (run.count > 0) {
    bool zero = false;
    const uint64_t same =
        SameKindPages(region.address + (run.first << kPageShift), run.count, zero);
    RETURN_IF_ERROR(zero ? AddZero(id, {run.first, same})
                         : AddWrite(id, region, {run.first, same}));
    run.first += same;
    run.count -= same;
  }
  return absl::OkStatus();
}

absl::Status PageShipper::AddWrite(RegionId id, const MappedRegion& region, PageRun run) {
  landed_.Set(id, run);
  shipped_.sent.fetch_add(run.count, std::memory_order_relaxed);
  uint64_t offset = run.first << kPageShift;
  for (uint64_t left = run.count << kPageShift; left > 0;) {
    const uint64_t room =
        std::min(channel_.capabilities().largest_write.value(), kBatchBytes - batch_bytes_);
    const uint64_t length = std::min(left, room);
    writes_.push_back(
        {.region = id, .offset = offset, .bytes = region.address + offset, .length = length});
    batch_bytes_ += length;
    offset += length;
    left -= length;
    if (batch_bytes_ >= kBatchBytes || writes_.size() >= channel_.capabilities().batch) {
      RETURN_IF_ERROR(SendBatch());
    }
  }
  return absl::OkStatus();
}

absl::Status PageShipper::AddZero(RegionId id, PageRun run) {
  if (run.count == 0) return absl::OkStatus();
  shipped_.zero.fetch_add(run.count, std::memory_order_relaxed);
  if (!landed_.Clear(id, run)) return absl::OkStatus();  // it is zero there already
  zeros_.push_back(
      {.region = id, .offset = run.first << kPageShift, .length = run.count << kPageShift});
  if (zeros_.size() >= channel_.capabilities().batch) return SendBatch();
  return absl::OkStatus();
}

absl::Status PageShipper::SendBatch() {
  RETURN_IF_ERROR(cancel_.status());
  if (!writes_.empty()) {
    RETURN_IF_ERROR(rate_.Acquire(ByteCount(batch_bytes_), &cancel_));
    RETURN_IF_ERROR(FromChannel(channel_.Write(writes_)));
    writes_.clear();
    batch_bytes_ = 0;
  }
  if (!zeros_.empty()) {
    RETURN_IF_ERROR(FromChannel(channel_.WriteZeros(zeros_)));
    zeros_.clear();
  }
  return absl::OkStatus();
}

}  // namespace ramferry
