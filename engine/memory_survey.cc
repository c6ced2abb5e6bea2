#include "engine/memory_survey.h"

#include <algorithm>

namespace ramferry {
namespace {

constexpr uint64_t kLeastStep = KiB(256).value() / kPageBytes;
constexpr uint64_t kMostSamples = 65536;
constexpr uint64_t kTrifle = 32;

}  // namespace

MemorySurvey::MemorySurvey(std::span<const MappedRegion> regions, const LocatePages& locate) {
  const uint64_t pages = PagesIn(regions).value();
  step_ = std::max(kLeastStep, (pages + kMostSamples - 1) / kMostSamples);
  for (size_t region = 0; region < regions.size(); ++region) {
    std::vector<uint64_t> samples;
    for (uint64_t page = 0; page < regions[region].pages(); page += step_) samples.push_back(page);
    nodes_.emplace_back(samples.size(), -1);
    locate(static_cast<RegionId>(region), samples, nodes_.back());
  }
}

SlicePlace MemorySurvey::PlaceOf(const Slice& slice) const {
  const std::vector<int>& nodes = nodes_[slice.region];
  std::map<int, uint64_t> found;
  SlicePlace place;
  for (uint64_t at = (slice.pages.first + step_ - 1) / step_;
       at < nodes.size() && at * step_ < slice.pages.end(); ++at) {
    if (nodes[at] < 0) continue;
    place.bytes += step_ * kPageBytes;
    ++found[nodes[at]];
    if (place.node < 0 || found[nodes[at]] > found[place.node]) place.node = nodes[at];
  }
  place.bytes = std::min(place.bytes, slice.pages.count * kPageBytes);
  return place;
}

std::map<int, uint64_t> MemorySurvey::BytesByNode(RegionId region) const {
  std::map<int, uint64_t> bytes;
  for (const int node : nodes_[region]) {
    if (node >= 0) bytes[node] += step_ * kPageBytes;
  }
  return bytes;
}

std::vector<int> MemorySurvey::Nodes() const {
  std::map<int, uint64_t> bytes;
  uint64_t total = 0;
  for (size_t region = 0; region < nodes_.size(); ++region) {
    for (const auto& [node, some] : BytesByNode(static_cast<RegionId>(region))) {
      bytes[node] += some;
      total += some;
    }
  }
  std::vector<int> nodes;
  for (const auto& [node, some] : bytes) {
    if (some >= total / kTrifle) nodes.push_back(node);
  }
  return nodes;
}

}  // namespace ramferry
