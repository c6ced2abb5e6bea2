// Rounds of pages: the workers, their channels and shippers, and what a round cost.
//
// Pre-copy and stop-and-copy are both made of rounds; they differ in what is collected, in the rate
// limit, and in whether the guest runs. A round takes one of two ways:
//
//   short   each slice is collected and sent at once, whatever its pages are
//   long    all slices are collected first; then they are sent, but for pages that are dirty again
//           when their turn comes, or are held because they are hot (policy/hot_pages.h)
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "base/token_bucket.h"
#include "engine/landed_map.h"
#include "engine/options.h"
#include "engine/page_shipper.h"
#include "engine/policy/hot_pages.h"
#include "engine/report.h"
#include "engine/worker_pool.h"
#include "hypervisor-glue/guest.h"
#include "transport/control_channel.h"
#include "transport/page_channel.h"

namespace ramferry {

using PageChannels = std::vector<std::unique_ptr<PageChannel>>;
// As many channels over another transport, in place of those that failed with `why`.
using ReplaceChannels = std::function<absl::StatusOr<PageChannels>(const absl::Status& why)>;

// What is still to be sent.
struct DirtyCount {
  PageCount pages;
  PageCount held;  // of them: too hot to be sent before the guest stops
};

// What a slice is collected by.
enum class CollectBy {
  kPopulated,  // first round: everything the guest ever touched; starts the dirty tracking of it
  kDirty,      // later rounds: what was written since
};

struct RoundKind {
  CollectBy by = CollectBy::kDirty;
  bool is_long = false;
  bool hold = false;  // of a long one: hot pages; the first round that does not thaws all
  // Of a long one: between collecting and sending, for what is written often to show itself.
  std::chrono::milliseconds pause{0};
};

class Precopy {
 public:
  // One worker for each channel. The guest's tracking has been started. When a channel fails, all
  // are replaced, what they had not confirmed is sent again, and the round goes on where it was.
  // `layout` is for as many workers; without slices: equal shares, and nobody is bound.
  Precopy(SourceGuest& guest, PageChannels channels, ReplaceChannels replace,
          const MigrationOptions& options, const Cancellation& cancel, WorkerLayout layout = {});
  ~Precopy();

  // Sends one round and waits until the destination has all of it.
  [[nodiscard]] absl::StatusOr<RoundReport> Round(const RoundKind& kind);
  // The same for a guest that is stopped: no rate limit, no quiescing.
  [[nodiscard]] absl::StatusOr<RoundReport> FinalRound();

  // Pages that would have to be sent if the guest were stopped now; nothing is cleared.
  [[nodiscard]] absl::StatusOr<DirtyCount> CountDirty();
  // No page is held any more, nor counts as hot.
  void Thaw();
  // Told of a round that is under way, several times a second, in the caller's thread.
  void SetWatch(std::function<void(const RoundProgress&)> watch);
  // Of the rounds to come; bytes a second, 0: no limit.
  void SetRate(ByteCount rate) { rate_.SetRate(rate); }
  // What it took the last time to find out which pages are dirty, all of them.
  [[nodiscard]] double collect_ms() const { return collect_ms_; }
  // Digests of all slices, in parallel.
  [[nodiscard]] absl::StatusOr<std::vector<SliceDigest>> Digests();

  [[nodiscard]] ByteCount wire_bytes() const;
  [[nodiscard]] uint32_t workers() const { return pool_.workers(); }
  // Pages with contents that each worker has sent.
  [[nodiscard]] std::vector<PageCount> PagesByWorker() const;
  // As WorkerPool::binding.
  [[nodiscard]] absl::Status binding() const { return pool_.binding(); }
  // Makes a round that is under way fail soon. Thread-safe.
  void Abort();

 private:
  // What a worker collects into: no allocation after the first slices.
  struct Scratch {
    PageRuns spans;
    PageRuns dirty;
    PageRuns owed;
  };
  [[nodiscard]] absl::StatusOr<RoundReport> Send(const RoundKind& kind, bool quiesce);
  // Every slice at once while no I/O is in flight, for guests that need it.
  [[nodiscard]] absl::Status CollectQuiesced(const RoundKind& kind);
  // From here on the pages are owed.
  [[nodiscard]] absl::Status Collect(const Slice& slice, const RoundKind& kind, bool quiesced,
                                     Scratch& scratch);
  [[nodiscard]] absl::Status SendAllOwed(const Slice& slice, uint32_t worker);
  [[nodiscard]] absl::Status SendQuiet(const Slice& slice, uint32_t worker);
  [[nodiscard]] absl::Status Pause(std::chrono::milliseconds time) const;
  [[nodiscard]] RoundProgress Progress() const;

  SourceGuest& guest_;
  // Puts shippers on the channels; what `unconfirmed` names is sent first.
  void UseChannels(PageChannels channels);
  [[nodiscard]] absl::Status GoOnOverOtherChannels(const absl::Status& why);

  mutable std::mutex mutex_;  // guards the replacement of channels_ against Abort
  PageChannels channels_;
  ReplaceChannels replace_;
  ByteCount wire_bytes_before_;  // of channels that were replaced
  LandedMap landed_;
  TokenBucket rate_;
  const Cancellation& cancel_;
  std::vector<ShippedPages> shipped_;  // by worker
  std::vector<std::unique_ptr<PageShipper>> shippers_;
  WorkerPool pool_;
  HotPages hot_;
  bool holding_ = false;              // some pages may be held
  std::vector<Scratch> scratch_;      // by worker
  std::atomic<uint64_t> skipped_{0};  // pages, in all rounds
  std::atomic<bool> collection_failed_ = false;
  double collect_ms_ = 0;
  // The round that is under way.
  struct UnderWay {
    Deadline start;
    PageCount sent_before;
    PageCount handled_before;            // sent, zero or skipped
    PageCount due;                       // that it is expected to handle; 0: it looks at all memory
    std::atomic<uint64_t> looked_at{0};  // pages of slices that are done
  };
  UnderWay round_;
  PageCount guest_pages_;
  PageCount due_;  // of the next round, as last counted; of the first: what is populated, if known
  Waiting waiting_;
  uint32_t rounds_ = 0;
};

}  // namespace ramferry
