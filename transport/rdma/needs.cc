#include "transport/rdma/needs.h"

#include <algorithm>

#include "fmt/format.h"
#include "transport/rdma/wire.h"

namespace ramferry::rdma {
namespace {

// Messages of both ends and the place for the proof, in whole pages.
constexpr uint64_t kMessageBytes = KiB(64).value();

uint64_t RoundedMiB(uint64_t bytes) {
  return (bytes + MiB(1).value() - 1) >> 20;
}

}  // namespace

DeviceLimits LimitsOf(const std::string& name, const ibv_device_attr& attributes) {
  DeviceLimits limits;
  limits.name = name;
  if (attributes.max_mr_size != 0) limits.largest_registration = attributes.max_mr_size;
  if (attributes.max_mr > 0) limits.most_registrations = static_cast<uint64_t>(attributes.max_mr);
  return limits;
}

RdmaNeeds NeedsOf(std::span<const MappedRegion> regions, ByteCount pin_budget, size_t channels) {
  RdmaNeeds needs;
  needs.channels = channels;
  bool staging = false;
  uint64_t registered = 0;
  for (const MappedRegion& region : regions) {
    const uint64_t size = region.description.size.value();
    const uint64_t granule = std::max(kGranule, region.description.backing_page_size.value());
    const uint64_t piece = std::max(kLargestPiece, granule);
    needs.granule = std::max(needs.granule, granule);
    needs.pieces += (size + piece - 1) / piece;
    staging = staging || !region.can_register;
    if (region.can_register) registered += size;
  }
  needs.guest = pin_budget;
  if (!regions.empty() && (pin_budget.value() == 0 || pin_budget > ByteCount(registered))) {
    needs.guest = ByteCount(registered);
  }
  needs.beside = ByteCount(channels * (kMessageBytes + (staging ? kStagingBytes : 0)));
  needs.largest_registration = std::max(needs.granule, staging ? kStagingBytes : 0);
  return needs;
}

uint32_t PiecesWithin(uint64_t most_registrations, size_t channels) {
  const uint64_t own = kOwnRegistrations * channels;
  if (most_registrations <= own) return 0;
  return static_cast<uint32_t>(std::min<uint64_t>(kMostPieces, most_registrations - own));
}

absl::Status CheckDevice(const DeviceLimits& device, const RdmaNeeds& needs) {
  if (device.largest_registration < needs.largest_registration) {
    return absl::FailedPreconditionError(fmt::format(
        "RDMA device {} registers at most {} KiB at once (max_mr_size), and this takes {} KiB{}: "
        "use another device (--rdma-address), or --transport tcp",
        device.name, device.largest_registration >> 10, needs.largest_registration >> 10,
        needs.granule > kGranule ? " (the guest's huge pages)" : ""));
  }
  if (device.most_registrations < needs.least_registrations()) {
    return absl::FailedPreconditionError(fmt::format(
        "RDMA device {} allows {} registrations (max_mr), and {} page channels take at least {}: "
        "use fewer --workers, another device (--rdma-address), or --transport tcp",
        device.name, device.most_registrations, needs.channels, needs.least_registrations()));
  }
  return absl::OkStatus();
}

absl::Status CheckPinning(std::optional<ByteCount> limit, const RdmaNeeds& needs) {
  if (!limit || needs.guest + needs.beside <= *limit) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format(
      "RDMA needs to pin {} MiB of guest memory and {} MiB for {} page channels, but "
      "RLIMIT_MEMLOCK is {} KiB: raise it (LimitMEMLOCK=infinity in the service, or ulimit -l "
      "unlimited), or set --pin-budget below it",
      RoundedMiB(needs.guest.value()), RoundedMiB(needs.beside.value()), needs.channels,
      limit->value() >> 10));
}

ByteCount BudgetWithin(std::optional<ByteCount> limit, ByteCount pin_budget,
                       const RdmaNeeds& needs) {
  if (!limit || needs.guest.value() == 0) return pin_budget;
  const ByteCount room = *limit - std::min(*limit, needs.beside);
  return pin_budget.value() == 0 ? room : std::min(room, pin_budget);
}

}  // namespace ramferry::rdma
