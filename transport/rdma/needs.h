// What a migration needs of an RDMA device and of this host's limits, from what is known before the
// guest is touched: the sizes of its regions, the pin budget and the number of channels. And
// whether it is there: asked on both hosts before channels are made, and by `ramferry check`.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "base/guest_memory.h"
#include "base/units.h"

namespace ramferry::rdma {

// Guest memory is registered in granules of this size, or of the backing's huge page.
inline constexpr uint64_t kGranule = MiB(1).value();
// And in pieces of so many bytes, where budget and devices allow.
inline constexpr uint64_t kLargestPiece = MiB(64).value();
// The ring of a channel whose guest memory cannot be registered.
inline constexpr uint64_t kStagingBytes = MiB(8).value();
// Registrations of a channel beside guest memory (messages, ring; messages, proof), of both ends:
// a guest may move between two QEMUs of one host.
inline constexpr size_t kOwnRegistrations = 4;

struct DeviceLimits {
  std::string name;
  uint64_t largest_registration = UINT64_MAX;  // max_mr_size
  uint64_t most_registrations = UINT64_MAX;    // max_mr
};
// As the device says; what it does not say (0, or a number too large for the field) is no limit.
[[nodiscard]] DeviceLimits LimitsOf(const std::string& name, const ibv_device_attr& attributes);

struct RdmaNeeds {
  size_t channels = 0;
  ByteCount guest;                    // guest memory that is pinned at once, at most
  ByteCount beside;                   // messages and rings
  uint64_t granule = kGranule;        // of the region with the largest
  uint64_t largest_registration = 0;  // that cannot be cut smaller
  uint64_t pieces = 0;                // registrations of all guest memory, without holes
  [[nodiscard]] uint64_t least_registrations() const { return channels * (kOwnRegistrations + 1); }
};
// `pin_budget` 0: all of the guest. Without regions: what any guest needs, as far as it is known.
[[nodiscard]] RdmaNeeds NeedsOf(std::span<const MappedRegion> regions, ByteCount pin_budget,
                                size_t channels);

// Pieces that may be registered at once beside what the channels need for themselves; 0: none.
[[nodiscard]] uint32_t PiecesWithin(uint64_t most_registrations, size_t channels);

// FailedPrecondition, with what to do, when the device does not allow what is needed. That it does
// allow it is no promise: others may hold registrations of the same device.
[[nodiscard]] absl::Status CheckDevice(const DeviceLimits& device, const RdmaNeeds& needs);

// The same for what this process may pin; `limit` is PinLimit() (pin_limit.h).
[[nodiscard]] absl::Status CheckPinning(std::optional<ByteCount> limit, const RdmaNeeds& needs);

// `pin_budget`, or what the limit leaves for guest memory where that is less. Two devices may pin
// the same memory: only a budget keeps that within a limit.
[[nodiscard]] ByteCount BudgetWithin(std::optional<ByteCount> limit, ByteCount pin_budget,
                                     const RdmaNeeds& needs);

}  // namespace ramferry::rdma
