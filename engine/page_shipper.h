// One worker's way of sending pages: tell zero pages from others, write in batches.
//
// Run to completion: the thread that looks at a page is the one that hands it to its channel;
// nothing is passed on, nothing is locked, and after the first slices nothing is allocated.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "base/cancellation.h"
#include "base/local_pages.h"
#include "base/token_bucket.h"
#include "engine/landed_map.h"
#include "hypervisor-glue/guest.h"
#include "transport/page_channel.h"

namespace ramferry {

// Runs of one region.
struct RegionRuns {
  RegionId region = 0;
  PageRuns runs;
};

// Counters of one worker that others may read while it goes on. Pages. On a cache line of their
// own: a line that several workers write would travel between them at every run.
struct alignas(64) ShippedPages {
  std::atomic<uint64_t> sent{0};  // with contents
  std::atomic<uint64_t> zero{0};
};
static_assert(sizeof(ShippedPages) == 64);

// Shares no cache line with another worker's either.
class alignas(64) PageShipper : public InLocalPages {
 public:
  // All outlive the shipper. `rate` limits page bytes.
  PageShipper(SourceGuest& guest, PageChannel& channel, LandedMap& landed, TokenBucket& rate,
              const Cancellation& cancel, ShippedPages& shipped);

  // Sends runs of `region` that were collected before.
  [[nodiscard]] absl::Status ShipCollected(RegionId region, const PageRuns& runs);
  // Frees at the destination what is not among the `populated` runs of the slice. Memory that the
  // host took back from the guest (a balloon) without a write of the guest is in no dirty log.
  [[nodiscard]] absl::Status ClearHoles(const Slice& slice, const PageRuns& populated);
  // Waits until the destination has everything that was shipped.
  [[nodiscard]] absl::Status Confirm();

  // What was collected and not confirmed since: must be sent again if the channel fails.
  [[nodiscard]] const std::vector<RegionRuns>& unconfirmed() const { return unconfirmed_; }
  // Whether an error came from the channel, and not from the guest.
  [[nodiscard]] bool channel_failed() const { return channel_failed_; }

 private:
  [[nodiscard]] absl::Status ShipRun(const MappedRegion& region, RegionId id, PageRun run);
  [[nodiscard]] absl::Status AddWrite(RegionId id, const MappedRegion& region, PageRun run);
  [[nodiscard]] absl::Status AddZero(RegionId id, PageRun run);
  [[nodiscard]] absl::Status SendBatch();
  [[nodiscard]] absl::Status FromChannel(absl::Status status);

  SourceGuest& guest_;
  PageChannel& channel_;
  LandedMap& landed_;
  TokenBucket& rate_;
  const Cancellation& cancel_;
  ShippedPages& shipped_;
  PageRuns populated_;
  LocalVector<PageWrite> writes_;
  LocalVector<PageZero> zeros_;
  uint64_t batch_bytes_ = 0;
  std::vector<RegionRuns> unconfirmed_;
  uint64_t unconfirmed_pages_ = 0;
  bool channel_failed_ = false;
};

}  // namespace ramferry
