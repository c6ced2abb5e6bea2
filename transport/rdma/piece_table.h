// Which pieces of guest memory are registered on both hosts, and who uses them. One table a
// migration and protection domain, on the source, shared by all channels.
//
// Memory is registered in pieces: up to 64 MiB, in granules of 1 MiB (or the backing page, if that
// is larger). A piece covers adjacent granules that hold data at the source, so that holes are
// neither pinned nor populated on either host, save for holes smaller than a granule. A piece is
// registered at the first write from it, on the source by the table, on the destination at a
// channel's request.
//
// Pinned bytes stay within a budget, and pieces within the number of registrations: a piece that
// nobody uses is dropped, least recently used first. A channel *uses* a piece from its first write
// there until it has flushed and let go. It uses at most its share of both at a time (share(),
// most_in_use()), so that there is always a piece to drop for those who need one: nobody ever waits
// for another channel's goodwill.
//
// Find and at() take no lock and may be called for pieces in use; the rest locks and is for the
// slow path. Thread-safe.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/guest_memory.h"
#include "base/page_run.h"
#include "base/units.h"
#include "transport/rdma/verbs.h"
#include "transport/rdma/wire.h"

namespace ramferry::rdma {

using PieceId = uint32_t;
inline constexpr PieceId kNoPiece = ~PieceId{0};

struct Piece {
  RegionId region = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  Registration local;  // not valid: the region cannot be registered, its pages go through staging
  uint32_t rkey = 0;
  uint64_t remote_address = 0;

  [[nodiscard]] uint64_t end() const { return offset + length; }
};

struct PieceLimits {
  ByteCount budget;                     // pinned bytes on each host; 0: no limit
  uint64_t largest_piece = UINT64_MAX;  // of both devices
  uint32_t most_pieces = kMostPieces;   // of both devices
  size_t channels = 0;

  // Of what a device allows, and of what the destination says that its own does.
  void Heed(uint64_t largest_registration, uint32_t pieces) {
    largest_piece = std::min(largest_piece, largest_registration);
    most_pieces = std::min(most_pieces, pieces);
  }
};

class PieceTable {
 public:
  // FailedPrecondition when the budget, or what the devices allow, is too small for the channels.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<PieceTable>> Create(
      std::span<const MappedRegion> source, Memory& memory, const PieceLimits& limits);

  // The piece that holds the byte, or kNoPiece. Only good for a piece the caller uses already.
  [[nodiscard]] PieceId Find(RegionId region, uint64_t offset) const;
  [[nodiscard]] const Piece& at(PieceId id) const { return entries_[id].piece; }

  // What a channel has to do to use the piece around a byte.
  struct Claim {
    PieceId piece = kNoPiece;
    bool open = false;             // the caller opens it: register on the destination, then Opened
    std::vector<PieceId> dropped;  // first have the destination release these, then Dropped each
  };
  // Takes a use of the piece. `end` says how far the caller will write. May wait until another
  // channel has opened the same piece; `give_up` is asked while waiting. kNoPiece: no number is
  // free before the dropped ones are given back; ask again then.
  [[nodiscard]] absl::StatusOr<Claim> Acquire(RegionId region, uint64_t offset, uint64_t end,
                                              const std::atomic<bool>& give_up);
  // The destination has released a piece that Acquire dropped.
  void Dropped(PieceId id);
  // The destination has registered it: others may use it.
  void Opened(PieceId id, uint32_t rkey, uint64_t remote_address);
  void LetGo(std::span<const PieceId> pieces);

  // No channel of this migration can go on (its piece is half open): everyone waiting gives up.
  void Fail(const absl::Status& status);

  // Bytes a channel may use at a time before it must flush and let go; at least one largest piece.
  [[nodiscard]] uint64_t share() const { return share_; }
  // The same in pieces; at least one.
  [[nodiscard]] size_t most_in_use() const { return most_in_use_; }
  [[nodiscard]] uint64_t largest_piece() const { return largest_piece_; }
  [[nodiscard]] ByteCount pinned() const;
  // The most that was ever pinned at once.
  [[nodiscard]] ByteCount most_pinned() const;
  [[nodiscard]] std::span<const MappedRegion> source() const { return source_; }

 private:
  enum class State : uint8_t { kFree, kOpening, kOpen, kClosing };
  struct Entry {
    Piece piece;
    State state = State::kFree;
    uint32_t users = 0;
    uint64_t used_at = 0;
  };
  struct RegionMap {
    uint64_t granule = 0;
    uint64_t chunk = 0;
    std::unique_ptr<std::atomic<PieceId>[]> pieces;  // by granule
  };

  PieceTable(std::span<const MappedRegion> source, Memory& memory, const PieceLimits& limits);

  [[nodiscard]] PageRun ExtentAround(RegionId region, uint64_t offset, uint64_t end) const;
  [[nodiscard]] bool HoldsData(RegionId region, uint64_t granule) const;
  void Map(PieceId id, PieceId value);
  [[nodiscard]] bool MakeRoom(uint64_t bytes, std::vector<PieceId>& dropped, bool drop_one);
  [[nodiscard]] PieceId TakeFree();

  const std::vector<MappedRegion> source_;
  Memory& memory_;
  const uint64_t budget_;
  uint64_t share_ = 0;
  size_t most_in_use_ = 1;
  uint64_t largest_piece_ = 0;
  std::vector<RegionMap> maps_;
  std::vector<Entry> entries_;  // never resized

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  absl::Status failed_;  // guarded by mutex_, as the rest
  std::vector<PieceId> free_;
  uint64_t pinned_ = 0;
  uint64_t most_pinned_ = 0;
  uint64_t clock_ = 0;
};

}  // namespace ramferry::rdma
