// A bitmap that can only be fetched as a whole, handed out slice by slice.
//
// Xen reads (and clears) the log-dirty bitmap of a domain from its first page on: there is no way
// to ask for a part. The workers of a round ask for parts. So the first of them fetches all of it,
// and the others take from that, until one asks for a part that was handed out already: that is the
// next round. A part is thus at most one round older than if it had been fetched by itself; what
// was written in between comes with the next fetch.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/page_run.h"

namespace ramferry {

class SlicedBitmap {
 public:
  // Sets the bits of the pages that are dirty; finds all bits zero.
  using Fetch = std::function<absl::Status(std::span<uint64_t> words)>;

  SlicedBitmap(uint64_t pages, Fetch fetch);

  // Appends the runs of `part` that are dirty, with `offset` added to each, and forgets them here.
  [[nodiscard]] absl::Status Take(PageRun part, int64_t offset, PageRuns& runs);
  // As Take, without forgetting or fetching.
  void Look(PageRun part, int64_t offset, PageRuns& runs) const;
  // What was fetched so far may be older than what the caller has to know: the next Take fetches.
  void Renew();
  // From here on these are dirty.
  void Mark(PageRun part);

 private:
  void Append(PageRun part, int64_t offset, PageRuns& runs) const;

  const uint64_t pages_;
  const Fetch fetch_;
  mutable std::mutex mutex_;
  bool renew_ = false;
  std::vector<uint64_t> dirty_;
  std::vector<uint64_t> fetched_;
  std::vector<bool> taken_;  // pages that were handed out since the last fetch
};

}  // namespace ramferry
