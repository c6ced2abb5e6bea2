// Places the workers of a migration: measures the guest, plans (placement/worker_plan.h), and says
// it in the words of those who carry it out.
//
//   SourcePlacement placement(guest, host, options);   // how many workers, and their slices'
//   places
//   ... reserve placement.workers() channels ...
//   placement.Plan(connector.NicsTo(offer));           // which CPUs, slices and devices
//   connector.PlaceChannels(placement.places());
//   Precopy precopy(guest, channels, ..., placement.TakeLayout());
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/memory_survey.h"
#include "engine/options.h"
#include "engine/placement/worker_plan.h"
#include "engine/worker_pool.h"
#include "hypervisor-glue/guest.h"
#include "transport/page_channel.h"

namespace ramferry {

class SourcePlacement {
 public:
  // `host` outlives this. On a host with one node nothing is measured.
  SourcePlacement(const SourceGuest& guest, const HostTopology& host,
                  const MigrationOptions& options);

  [[nodiscard]] uint32_t workers() const { return workers_; }
  // For each worker the region that it begins with most of: for the destination's own plan.
  [[nodiscard]] std::vector<uint32_t> ChannelRegions() const;

  // Again whenever the way to the destination changes. `nics`: NicsTo.
  void Plan(std::vector<std::string> nics);
  [[nodiscard]] const WorkerPlan& plan() const { return plan_; }
  [[nodiscard]] std::vector<ChannelPlace> places() const;
  [[nodiscard]] WorkerLayout Layout() const;
  // Nothing on a host with one node.
  [[nodiscard]] const std::optional<MemorySurvey>& survey() const { return survey_; }

 private:
  const HostTopology& host_;
  UsableCpus usable_;
  uint32_t workers_ = 1;
  std::optional<MemorySurvey> survey_;
  std::vector<Slice> slices_;
  std::vector<SlicePlace> slice_places_;
  WorkerPlan plan_;
};

}  // namespace ramferry
