// Turns the bytes of a page channel into checked commands, at the destination. Pure: no socket, no
// guest memory. This is the one place where a source's frames are judged; what reaches the sink is
// page-aligned and inside its region.
//
//   FrameParser parser(regions, sink);
//   ASSIGN_OR_RETURN(size_t used, parser.Consume(bytes));   // keep the rest, append to it, again
//
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/guest_memory.h"
#include "base/page_run.h"
#include "transport/tcp/frame.h"

namespace ramferry::tcp {

// Takes what the parser let through. An error ends the channel with it.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  // Whole pages. `bytes` are those given to Consume and valid until it returns.
  [[nodiscard]] virtual absl::Status OnWrite(RegionId region, uint64_t offset,
                                             std::span<const std::byte> bytes) = 0;
  [[nodiscard]] virtual absl::Status OnZero(RegionId region, uint64_t offset, uint64_t length) = 0;
  [[nodiscard]] virtual absl::Status OnFlush(uint64_t sequence) = 0;
};

class FrameParser {
 public:
  // `sink` must outlive the parser. Of `regions` only the sizes are kept.
  FrameParser(std::span<const MappedRegion> regions, FrameSink& sink);

  // Handles as much of `bytes` as is complete: headers as a whole, payload by whole pages. Returns
  // how much that was; less than kHeaderBytes or one page is ever left over. InvalidArgument: the
  // source broke the protocol. After an error the parser must not be used again.
  [[nodiscard]] absl::StatusOr<size_t> Consume(std::span<const std::byte> bytes);

  // Payload of a WRITE that is still to come. Whoever lands some of it without Consume says so with
  // Landed(), and lands the rest of that frame so too unless whole pages are left.
  struct Pending {
    RegionId region = 0;
    uint64_t offset = 0;
    uint64_t length = 0;
  };
  [[nodiscard]] Pending pending() const { return {region_, offset_, left_}; }
  void Landed(uint64_t bytes) {
    offset_ += bytes;
    left_ -= bytes;
  }

  // The source said that nothing more will come.
  [[nodiscard]] bool closed() const { return closed_; }

 private:
  absl::Status Begin(const FrameHeader& header);
  absl::Status CheckRange(const FrameHeader& header, const char* name) const;

  FrameSink& sink_;
  std::vector<uint64_t> sizes_;  // of the regions, in bytes
  RegionId region_ = 0;          // of the kWrite whose payload is coming in
  uint64_t offset_ = 0;          // where its next byte belongs
  uint64_t left_ = 0;            // payload bytes still to come; 0: a header is next
  bool closed_ = false;
};

}  // namespace ramferry::tcp
