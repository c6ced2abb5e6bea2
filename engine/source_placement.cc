#include "engine/source_placement.h"

#include <algorithm>
#include <map>
#include <utility>

namespace ramferry {

SourcePlacement::SourcePlacement(const SourceGuest& guest, const HostTopology& host,
                                 const MigrationOptions& options)
    : host_(host), usable_(FindUsableCpus(host, guest.Vcpus(), options.cpus)) {
  std::vector<int> nodes;
  if (!host.one_node()) {
    survey_.emplace(guest.regions(),
                    [&guest](RegionId region, std::span<const uint64_t> pages,
                             std::span<int> found) { guest.NodesOfPages(region, pages, found); });
    nodes = survey_->Nodes();
  }
  workers_ = WorkerCount(host, usable_, nodes, options.workers);
  slices_ = CutIntoSlices(guest.regions(), workers_);
  for (const Slice& slice : slices_) {
    slice_places_.push_back(survey_
                                ? survey_->PlaceOf(slice)
                                : SlicePlace{.bytes = slice.pages.count * kPageBytes, .node = -1});
  }
  Plan({});
}

void SourcePlacement::Plan(std::vector<std::string> nics) {
  plan_ = PlanWorkers({.host = host_,
                       .slices = slice_places_,
                       .usable = usable_,
                       .nics = std::move(nics),
                       .workers = workers_});
}

std::vector<uint32_t> SourcePlacement::ChannelRegions() const {
  std::vector<uint32_t> regions;
  for (const WorkerPlace& worker : plan_.workers) {
    std::map<uint32_t, uint64_t> bytes;
    for (const size_t slice : worker.slices) {
      bytes[slices_[slice].region] += slice_places_[slice].bytes;
    }
    const auto most =
        std::max_element(bytes.begin(), bytes.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    regions.push_back(most == bytes.end() ? 0 : most->first);
  }
  return regions;
}

std::vector<ChannelPlace> SourcePlacement::places() const {
  std::vector<ChannelPlace> places;
  for (const WorkerPlace& worker : plan_.workers) {
    places.push_back({.cpus = worker.cpus, .memory_node = worker.home, .nic = worker.nic});
  }
  return places;
}

WorkerLayout SourcePlacement::Layout() const {
  WorkerLayout layout;
  std::vector<int> nodes;
  for (const WorkerPlace& worker : plan_.workers) {
    for (const size_t slice : worker.slices) layout.slices.push_back(slices_[slice]);
    layout.shares.push_back(worker.slices.size());
    layout.cpus.push_back(worker.cpus);
    nodes.push_back(worker.node);
  }
  layout.steal = NearestFirst(nodes, [this](int a, int b) { return host_.Distance(a, b); });
  return layout;
}

}  // namespace ramferry
