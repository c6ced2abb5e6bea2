// The destination's side of NUMA placement: plans where a guest lands (placement/landing_plan.h),
// binds its memory before anything touches it, and looks afterwards where it is.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/placement/landing_plan.h"
#include "hypervisor-glue/guest.h"
#include "transport/control_channel.h"
#include "transport/page_channel.h"

namespace ramferry {

// What a person wants of the landing, the same for every guest that comes.
struct LandingWishes {
  NumaMap map;
  CpuSet cpus;  // for the threads that receive; empty: those the rules give
};

// What was planned for one guest.
struct GuestLanding {
  LandingPlan plan;
  std::vector<ChannelPlace> channels;  // one a page channel, for ChannelListener::Expect

  // Takes the binding of memory off again, for a guest that is given up.
  void Unbind(const DestinationGuest& guest) const;

  // Lines for a person: where the memory went, and whether that is where it was to go. Nothing
  // where no node was planned.
  [[nodiscard]] std::vector<std::string> Check(const DestinationGuest& guest) const;
};

// Plans, and binds memory. FailedPrecondition: the guest cannot come, with every reason.
[[nodiscard]] absl::StatusOr<GuestLanding> PlaceLanding(const HostTopology& host,
                                                        const LandingWishes& wishes,
                                                        const Reserve& reserve,
                                                        const DestinationGuest& guest);

}  // namespace ramferry
