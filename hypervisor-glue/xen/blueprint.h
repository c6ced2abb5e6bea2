// What the destination's Xen must know to build a domain like the source's: travels with the
// description at the reservation (GuestDescription::blueprint), as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/guest_memory.h"
#include "base/page_run.h"

namespace ramferry {

struct XenBlueprint {
  std::string uuid;
  std::string configuration;  // libxl's, as JSON
  uint32_t xen_major = 0;
  uint32_t xen_minor = 0;
  std::string cpuid_policy;  // arrays of xen_cpuid_leaf_t and xen_msr_entry_t
  std::string msr_policy;
  PageRuns ram;  // guest frames with memory behind them, ascending

  friend bool operator==(const XenBlueprint&, const XenBlueprint&) = default;
};

[[nodiscard]] std::string FormatBlueprint(const XenBlueprint& blueprint);
// InvalidArgument: not one that FormatBlueprint makes, or out of bounds.
[[nodiscard]] absl::StatusOr<XenBlueprint> ParseBlueprint(const std::string& text);

// A region of a Xen guest: frames [first, first + pages), with holes where it has no memory.
struct FrameRange {
  uint64_t first = 0;
  uint64_t pages = 0;
  PageRuns ram;  // counted from `first`

  friend bool operator==(const FrameRange&, const FrameRange&) = default;
};

// The regions that frames with memory are put into: few, so that holes in between are small, or so
// many that address space would be wasted on them. The same on both sides.
[[nodiscard]] std::vector<FrameRange> GroupFrames(const PageRuns& ram);
[[nodiscard]] RegionDescription DescribeRange(const FrameRange& range);

}  // namespace ramferry
