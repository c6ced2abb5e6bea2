#include "engine/landing_placement.h"

#include <algorithm>
#include <map>

#include "base/numa_memory.h"
#include "base/status.h"
#include "engine/memory_survey.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace ramferry {
namespace {

std::vector<LandingRegion> RegionsOf(const DestinationGuest& guest) {
  std::vector<LandingRegion> regions;
  for (const MappedRegion& region : guest.regions()) {
    const uint64_t size = region.description.size.value();
    const uint64_t populated = region.description.populated.value();
    regions.push_back({.guest_node = region.description.numa_node,
                       .size = size,
                       .populated = populated == 0 ? size : std::min(populated, size),
                       .backing_page_size = region.description.backing_page_size.value(),
                       .has_policy = HasPolicy(region.address),
                       .policy_node = PolicyNode(region.address).value_or(-1)});
  }
  return regions;
}

}  // namespace

absl::StatusOr<GuestLanding> PlaceLanding(const HostTopology& host, const LandingWishes& wishes,
                                          const Reserve& reserve, const DestinationGuest& guest) {
  const std::vector<LandingRegion> regions = RegionsOf(guest);
  const std::vector<VcpuPlace> vcpus = guest.Vcpus();
  GuestLanding landing{.plan = PlanLanding({.host = host,
                                            .regions = regions,
                                            .usable = FindUsableCpus(host, vcpus, wishes.cpus),
                                            .vcpus = vcpus,
                                            .map = wishes.map,
                                            .channel_regions = reserve.channel_regions,
                                            .channels = reserve.channels})};
  if (!landing.plan.refusals.empty()) {
    return absl::FailedPreconditionError(
        fmt::format("there is no place for the guest's memory:\n  - {}",
                    fmt::join(landing.plan.refusals, "\n  - ")));
  }
  for (size_t i = 0; i < regions.size(); ++i) {
    const MappedRegion& region = guest.regions()[i];
    // Memory that is not mapped here (Xen's) goes where its hypervisor puts it.
    if (!landing.plan.regions[i].bind || region.address == nullptr) continue;
    RETURN_IF_ERROR(
        PreferNode(region.address, region.description.size.value(), landing.plan.regions[i].node));
  }
  for (const ChannelLanding& channel : landing.plan.channels) {
    landing.channels.push_back({.cpus = channel.cpus, .memory_node = channel.node});
  }
  return landing;
}

void GuestLanding::Unbind(const DestinationGuest& guest) const {
  for (size_t i = 0; i < plan.regions.size(); ++i) {
    const MappedRegion& region = guest.regions()[i];
    if (!plan.regions[i].bind || region.address == nullptr) continue;
    PreferNoNode(region.address, region.description.size.value()).IgnoreError();
  }
}

std::vector<std::string> GuestLanding::Check(const DestinationGuest& guest) const {
  if (std::none_of(plan.regions.begin(), plan.regions.end(),
                   [](const RegionLanding& region) { return region.node >= 0; })) {
    return {};
  }
  const MemorySurvey survey(
      guest.regions(),
      [&guest](RegionId region, std::span<const uint64_t> pages, std::span<int> nodes) {
        guest.NodesOfPages(region, pages, nodes);
      });
  std::vector<std::string> lines;
  for (size_t i = 0; i < plan.regions.size(); ++i) {
    const RegionDescription& region = guest.regions()[i].description;
    const std::string what = region.numa_node < 0 ? fmt::format("memory {}", region.name)
                                                  : fmt::format("memory {} (guest node {})",
                                                                region.name, region.numa_node);
    uint64_t there = 0;
    std::vector<std::string> elsewhere;
    for (const auto& [node, bytes] : survey.BytesByNode(static_cast<RegionId>(i))) {
      if (node == plan.regions[i].node) {
        there = bytes;
      } else {
        elsewhere.push_back(fmt::format("{} MiB on node {}", bytes >> 20, node));
      }
    }
    if (plan.regions[i].node < 0) continue;
    lines.push_back(
        fmt::format("{}: {} MiB on node {}, as planned ({}){}{}", what, there >> 20,
                    plan.regions[i].node, plan.regions[i].why,
                    elsewhere.empty() ? "" : "; NOT AS PLANNED: ", fmt::join(elsewhere, ", ")));
  }
  return lines;
}

}  // namespace ramferry
