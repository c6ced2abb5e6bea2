// Rounds of pages: the workers, their channels and shippers, and what a round cost.
//
// Pre-copy and stop-and-copy are both made of rounds; they differ in what is collected, in the rate
// limit, and in whether the guest runs.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "base/token_bucket.h"
#include "engine/landed_map.h"
#include "engine/options.h"
#include "engine/page_shipper.h"
#include "engine/report.h"
#include "engine/worker_pool.h"
#include "hypervisor-glue/guest.h"
#include "transport/control_channel.h"
#include "transport/page_channel.h"

namespace ramferry {

class Precopy {
 public:
  // One worker for each channel. The guest's tracking has been started.
  Precopy(SourceGuest& guest, std::vector<std::unique_ptr<PageChannel>> channels,
          const MigrationOptions& options, const Cancellation& cancel);
  ~Precopy();

  // Sends one round and waits until the destination has all of it.
  [[nodiscard]] absl::StatusOr<RoundReport> Round(CollectBy by);
  // The same for a guest that is stopped: no rate limit, no quiescing.
  [[nodiscard]] absl::StatusOr<RoundReport> FinalRound();

  // Pages dirty now; nothing is cleared.
  [[nodiscard]] absl::StatusOr<PageCount> CountDirty();
  // Digests of all slices, in parallel.
  [[nodiscard]] absl::StatusOr<std::vector<SliceDigest>> Digests();

  [[nodiscard]] ByteCount wire_bytes() const;
  [[nodiscard]] uint32_t workers() const { return pool_.workers(); }
  // Counts for a live display; from any thread.
  [[nodiscard]] const ShippedPages& shipped() const { return shipped_; }
  // Makes a round that is under way fail soon. Thread-safe.
  void Abort();

 private:
  [[nodiscard]] absl::StatusOr<RoundReport> Send(CollectBy by, bool quiesce);
  // Collects every slice at once while no I/O is in flight, for guests that need it.
  [[nodiscard]] absl::Status CollectQuiesced(CollectBy by);

  SourceGuest& guest_;
  std::vector<std::unique_ptr<PageChannel>> channels_;
  LandedMap landed_;
  TokenBucket rate_;
  const Cancellation& cancel_;
  ShippedPages shipped_;
  std::vector<std::unique_ptr<PageShipper>> shippers_;
  WorkerPool pool_;
  std::vector<PageRuns> collected_;  // by slice, when quiesced
  uint32_t rounds_ = 0;
};

}  // namespace ramferry
