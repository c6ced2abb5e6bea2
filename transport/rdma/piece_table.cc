#include "transport/rdma/piece_table.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "absl/status/status.h"
#include "base/status.h"
#include "fmt/format.h"
#include "transport/rdma/needs.h"

namespace ramferry::rdma {
namespace {

constexpr uint64_t kNoBudget = UINT64_MAX / 2;

}  // namespace

absl::StatusOr<std::unique_ptr<PieceTable>> PieceTable::Create(std::span<const MappedRegion> source,
                                                               Memory& memory,
                                                               const PieceLimits& limits) {
  std::unique_ptr<PieceTable> table(new PieceTable(source, memory, limits));
  uint64_t largest_granule = kGranule;
  for (const MappedRegion& region : source) {
    largest_granule = std::max(largest_granule, region.description.backing_page_size.value());
  }
  // Each side has looked at its own device (needs.h); this is what both say together.
  if (limits.largest_piece < largest_granule || limits.most_pieces < limits.channels) {
    return absl::FailedPreconditionError(fmt::format(
        "the RDMA devices of both hosts together allow {} registrations of at most {} KiB, and {} "
        "page channels take at least one each of {} KiB: use fewer --workers, other devices "
        "(--rdma-address), or --transport tcp",
        limits.most_pieces, limits.largest_piece >> 10, limits.channels, largest_granule >> 10));
  }
  if (table->share_ < table->largest_piece_) {
    return absl::FailedPreconditionError(fmt::format(
        "a pin budget of {} MiB is too small for {} RDMA channels: give at least {} MiB "
        "(--pin-budget), or fewer channels",
        table->budget_ >> 20, limits.channels, (largest_granule * limits.channels) >> 20));
  }
  return table;
}

PieceTable::PieceTable(std::span<const MappedRegion> source, Memory& memory,
                       const PieceLimits& limits)
    : source_(source.begin(), source.end()),
      memory_(memory),
      budget_(limits.budget.value() == 0 ? kNoBudget : limits.budget.value()) {
  share_ = budget_ / std::max<size_t>(limits.channels, 1);
  uint64_t piece = kLargestPiece;
  while (piece > kGranule && (piece > share_ || piece > limits.largest_piece)) piece /= 2;
  for (const MappedRegion& region : source_) {
    RegionMap map;
    map.granule = std::max(kGranule, region.description.backing_page_size.value());
    map.chunk = std::max(piece, map.granule);
    largest_piece_ = std::max(largest_piece_, map.chunk);
    const uint64_t granules = (region.description.size.value() + map.granule - 1) / map.granule;
    map.pieces = std::make_unique<std::atomic<PieceId>[]>(granules);
    for (uint64_t i = 0; i < granules; ++i)
      map.pieces[i].store(kNoPiece, std::memory_order_relaxed);
    maps_.push_back(std::move(map));
  }
  largest_piece_ = std::max(largest_piece_, piece);
  entries_ = std::vector<Entry>(std::max<uint32_t>(limits.most_pieces, 1));
  most_in_use_ = std::max<size_t>(entries_.size() / std::max<size_t>(limits.channels, 1), 1);
  for (PieceId id = static_cast<PieceId>(entries_.size()); id-- > 0;) free_.push_back(id);
}

PieceId PieceTable::Find(RegionId region, uint64_t offset) const {
  const RegionMap& map = maps_[region];
  return map.pieces[offset / map.granule].load(std::memory_order_acquire);
}

bool PieceTable::HoldsData(RegionId region, uint64_t granule) const {
  const MappedRegion& memory = source_[region];
  if (!memory.can_pwrite()) return false;  // cannot tell: take only what is written now
  const auto from = static_cast<off_t>(granule * maps_[region].granule);
  const off_t data = ::lseek(memory.fd, from, SEEK_DATA);
  return data >= 0 && data < from + static_cast<off_t>(maps_[region].granule);
}

// The granules to open around a byte, as (first, count): within a chunk, not in a piece yet, with
// data or about to get some up to `end`.
PageRun PieceTable::ExtentAround(RegionId region, uint64_t offset, uint64_t end) const {
  const RegionMap& map = maps_[region];
  const uint64_t size = source_[region].description.size.value();
  const uint64_t here = offset / map.granule;
  const uint64_t per_chunk = map.chunk / map.granule;
  uint64_t first = here / per_chunk * per_chunk;
  const uint64_t limit = std::min(first + per_chunk, (size + map.granule - 1) / map.granule);
  const auto free = [&](uint64_t granule) {
    return map.pieces[granule].load(std::memory_order_relaxed) == kNoPiece;
  };
  uint64_t begin = here;
  while (begin > first && free(begin - 1) && HoldsData(region, begin - 1)) --begin;
  uint64_t stop = here + 1;
  while (stop < limit && free(stop) && (stop * map.granule < end || HoldsData(region, stop)))
    ++stop;
  return {begin, stop - begin};
}

void PieceTable::Map(PieceId id, PieceId value) {
  const Piece& piece = entries_[id].piece;
  const RegionMap& map = maps_[piece.region];
  for (uint64_t at = piece.offset; at < piece.end(); at += map.granule) {
    map.pieces[at / map.granule].store(value, std::memory_order_release);
  }
}

// Drops unused pieces, oldest first, until `bytes` more fit. False: all the rest is in use or being
// dropped by others.
bool PieceTable::MakeRoom(uint64_t bytes, std::vector<PieceId>& dropped, bool drop_one) {
  uint64_t leaving = 0;
  for (const PieceId id : dropped) leaving += entries_[id].piece.length;
  while (drop_one || pinned_ - leaving + bytes > budget_) {
    PieceId oldest = kNoPiece;
    for (PieceId id = 0; id < entries_.size(); ++id) {
      const Entry& entry = entries_[id];
      if (entry.state != State::kOpen || entry.users != 0) continue;
      if (oldest == kNoPiece || entry.used_at < entries_[oldest].used_at) oldest = id;
    }
    if (oldest == kNoPiece) return false;
    Entry& entry = entries_[oldest];
    entry.state = State::kClosing;
    Map(oldest, kNoPiece);
    entry.piece.local.Reset();
    leaving += entry.piece.length;
    dropped.push_back(oldest);
    drop_one = false;
  }
  return true;
}

PieceId PieceTable::TakeFree() {
  if (free_.empty()) return kNoPiece;
  const PieceId id = free_.back();
  free_.pop_back();
  return id;
}

absl::StatusOr<PieceTable::Claim> PieceTable::Acquire(RegionId region, uint64_t offset,
                                                      uint64_t end,
                                                      const std::atomic<bool>& give_up) {
  Claim claim;
  std::unique_lock lock(mutex_);
  // Nobody waits while it keeps dropped pieces from the others: their memory is not free before the
  // destination has released them. The caller sees to that, and asks again.
  const auto wait = [&] {
    if (!claim.dropped.empty()) return false;
    changed_.wait_for(lock, std::chrono::milliseconds(20));
    return true;
  };
  for (;;) {
    if (!failed_.ok()) return failed_;
    if (give_up.load(std::memory_order_relaxed)) return absl::CancelledError("channel aborted");
    const PieceId there = Find(region, offset);
    if (there != kNoPiece) {
      Entry& entry = entries_[there];
      if (entry.state != State::kOpen) {  // another channel is opening it
        if (!wait()) return claim;
        continue;
      }
      ++entry.users;
      entry.used_at = ++clock_;
      claim.piece = there;
      return claim;
    }
    const PageRun extent = ExtentAround(region, offset, end);
    const uint64_t granule = maps_[region].granule;
    const uint64_t start = extent.first * granule;
    const uint64_t length =
        std::min(extent.count * granule, source_[region].description.size.value() - start);
    if (!MakeRoom(length, claim.dropped, free_.empty() && claim.dropped.empty())) {
      if (!wait()) return claim;
      continue;
    }
    claim.piece = TakeFree();
    if (claim.piece == kNoPiece) return claim;
    Entry& entry = entries_[claim.piece];
    entry.piece.region = region;
    entry.piece.offset = start;
    entry.piece.length = length;
    entry.state = State::kOpening;
    entry.users = 1;
    entry.used_at = ++clock_;
    pinned_ += length;
    Map(claim.piece, claim.piece);
    claim.open = true;
    break;
  }
  lock.unlock();

  const MappedRegion& memory = source_[region];
  if (memory.can_register) {
    Piece& piece = entries_[claim.piece].piece;
    auto local = memory_.Register(memory.address + piece.offset, piece.length, Access::kLocalRead);
    while (absl::IsResourceExhausted(local.status())) {
      // The device or the kernel has less room than it said: live with what there is.
      lock.lock();
      const bool room = MakeRoom(0, claim.dropped, /*drop_one=*/true);
      lock.unlock();
      if (!room) break;
      local = memory_.Register(memory.address + piece.offset, piece.length, Access::kLocalRead);
    }
    if (!local.ok()) {
      const absl::Status status =
          Annotate(local.status(),
                   fmt::format("cannot register {} MiB at {} MiB of region {}", piece.length >> 20,
                               piece.offset >> 20, memory.description.name));
      Fail(status);
      return status;
    }
    piece.local = *std::move(local);
  }
  return claim;
}

void PieceTable::Dropped(PieceId id) {
  const std::lock_guard lock(mutex_);
  entries_[id].state = State::kFree;
  pinned_ -= entries_[id].piece.length;
  free_.push_back(id);
  changed_.notify_all();
}

void PieceTable::Opened(PieceId id, uint32_t rkey, uint64_t remote_address) {
  const std::lock_guard lock(mutex_);
  entries_[id].piece.rkey = rkey;
  entries_[id].piece.remote_address = remote_address;
  entries_[id].state = State::kOpen;
  most_pinned_ = std::max(most_pinned_, pinned_);
  changed_.notify_all();
}

void PieceTable::LetGo(std::span<const PieceId> pieces) {
  const std::lock_guard lock(mutex_);
  for (const PieceId id : pieces) --entries_[id].users;
  changed_.notify_all();
}

void PieceTable::Fail(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  if (failed_.ok()) failed_ = status;
  changed_.notify_all();
}

ByteCount PieceTable::pinned() const {
  const std::lock_guard lock(mutex_);
  return ByteCount(pinned_);
}

ByteCount PieceTable::most_pinned() const {
  const std::lock_guard lock(mutex_);
  return ByteCount(most_pinned_);
}

}  // namespace ramferry::rdma
