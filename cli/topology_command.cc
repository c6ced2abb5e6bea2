// `ramferry topology [GUEST]`: the plan that `ramferry migrate` would make now.
#include <algorithm>

#include "base/local_interface.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/guests.h"
#include "cli/measure.h"
#include "cli/say.h"
#include "cli/topology_view.h"
#include "engine/placement/usable_cpus.h"
#include "engine/source_placement.h"

namespace ramferry {
namespace {

// The interface that leads to `destination`. Without one: all RDMA devices, if there are any, else
// all network devices.
std::vector<std::string> NicsTowards(const HostTopology& host, const std::string& destination) {
  if (!destination.empty()) return {InterfaceTowards(destination)};
  const bool rdma =
      std::any_of(host.nics.begin(), host.nics.end(), [](const HostNic& nic) { return nic.rdma; });
  std::vector<std::string> names;
  for (const HostNic& nic : host.nics) {
    if (nic.rdma == rdma) names.push_back(nic.name);
  }
  return names;
}

absl::StatusOr<GuestView> Survey(const std::string& guest_name, const HostTopology& host,
                                 const TopologyArguments& arguments, const Settings& settings) {
  ASSIGN_OR_RETURN(const std::string locator, LocatorOf(guest_name));
  ASSIGN_OR_RETURN(const AttachedGuest attached, AttachGuest(locator));
  const SourceGuest* const guest = attached.guest.get();
  SourcePlacement placement(*guest, host, settings.migration_options());
  placement.Plan(NicsTowards(host, arguments.destination));
  GuestView view{
      .name = guest->description().name, .vcpus = guest->Vcpus(), .plan = placement.plan()};
  for (size_t i = 0; i < guest->description().regions.size(); ++i) {
    const RegionDescription& region = guest->description().regions[i];
    MemoryView memory{.name = region.name,
                      .guest_node = region.numa_node,
                      .size = region.size.value(),
                      .populated = region.populated.value()};
    if (placement.survey()) {
      memory.bytes_by_node = placement.survey()->BytesByNode(static_cast<RegionId>(i));
    }
    view.memory.push_back(std::move(memory));
  }
  return view;
}

absl::Status Show(const TopologyArguments& arguments, const Settings& settings) {
  TopologyView view;
  ASSIGN_OR_RETURN(view.host, ReadHostTopology());
  RETURN_IF_ERROR(CheckWantedCpus(view.host, settings.migration_options().cpus));
  if (!arguments.guest.empty()) {
    ASSIGN_OR_RETURN(view.guest, Survey(arguments.guest, view.host, arguments, settings));
  }
  if (arguments.json != "-" && arguments.svg != "-") Say("{}", FormatTopology(view));
  if (!arguments.json.empty()) RETURN_IF_ERROR(WriteOutput(arguments.json, TopologyJson(view)));
  if (!arguments.svg.empty()) RETURN_IF_ERROR(WriteOutput(arguments.svg, TopologySvg(view)));
  return absl::OkStatus();
}

}  // namespace

int TopologyCommand(const TopologyArguments& arguments, const Settings& settings) {
  const absl::Status status = Show(arguments, settings);
  return status.ok() ? kExitOk : FailCommand(status);
}

}  // namespace ramferry
