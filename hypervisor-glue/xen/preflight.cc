#include "hypervisor-glue/xen/preflight.h"

#include <unistd.h>

#include "base/status.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

using nlohmann::json;

bool HasEntries(const json& configuration, const char* list) {
  return configuration.contains(list) && configuration[list].is_array() &&
         !configuration[list].empty();
}

std::string TypeIn(const json& configuration) {
  const json empty = json::object();
  const json& info = configuration.contains("c_info") ? configuration["c_info"] : empty;
  return info.is_object() && info.contains("type") && info["type"].is_string()
             ? info["type"].get<std::string>()
             : "pv";
}

}  // namespace

bool SuspendsItself(const XenControl& xen, const XenDomain& domain) {
  uint64_t callback = 0;
  return xc_hvm_param_get(xen.xc(), domain.id, HVM_PARAM_CALLBACK_IRQ, &callback) == 0 &&
         callback != 0;
}

absl::StatusOr<std::vector<std::string>> XenSourceReasons(const XenControl& xen,
                                                          const XenDomain& domain,
                                                          const std::string& configuration) {
  std::vector<std::string> reasons;
  ASSIGN_OR_RETURN(const XenDomainState state, xen.StateOf(domain));
  const json parsed = json::parse(configuration, nullptr, /*allow_exceptions=*/false);
  if (domain.id == 0) {
    reasons.emplace_back("it is dom0: this host itself");
    return reasons;
  }
  const std::string type = TypeIn(parsed);
  if (!state.pvh_or_hvm || type != "pvh") {
    reasons.push_back(fmt::format(
        "it is a {} domain, and only PVH domains can be moved yet: give it type=\"pvh\", or use "
        "`xl migrate`",
        type == "hvm" ? "HVM" : "PV"));
  }
  if (state.pvh_or_hvm && !state.hap) {
    reasons.emplace_back(
        "it has no hardware-assisted paging (hap=0): Xen would need shadow paging "
        "to track its writes. Start it with hap=1");
  }
  if (state.dying || state.shut_down) reasons.emplace_back("it has shut down");
  if (state.paused)
    reasons.emplace_back("it is paused: a guest must run to suspend. `xl unpause` it");
  if (HasEntries(parsed, "pcidevs")) {
    reasons.emplace_back(
        "it has a PCI device passed through, whose writes Xen does not see: detach "
        "it (`xl pci-detach`)");
  }
  if (HasEntries(parsed, "p9s") || HasEntries(parsed, "pvcallsifs")) {
    reasons.emplace_back(
        "it has 9pfs or pvcalls devices, whose state would stay behind: detach "
        "them");
  }
  uint64_t total = 0;
  uint64_t cache = 0;
  uint64_t entries = 0;
  if (state.pvh_or_hvm &&
      xc_domain_get_pod_target(xen.xc(), domain.id, &total, &cache, &entries) == 0 && entries > 0) {
    reasons.push_back(fmt::format(
        "{} MiB of its memory are populated on demand, and looking at them would populate them: "
        "let its balloon driver reach memory= first, or set maxmem= to the same",
        entries >> 8));
  }
  return reasons;
}

std::vector<std::string> XenDestinationReasons(const XenControl& xen,
                                               const XenBlueprint& blueprint) {
  std::vector<std::string> reasons;
  const auto theirs = std::pair(blueprint.xen_major, blueprint.xen_minor);
  const auto ours = std::pair(xen.MajorVersion(), xen.MinorVersion());
  if (theirs > ours) {
    reasons.push_back(fmt::format(
        "it comes from Xen {}.{}, and this host has {}: Xen restores domains of its own version "
        "and of older ones",
        theirs.first, theirs.second, xen.Version()));
  }
  if (const auto there = xen.FindByUuid(blueprint.uuid); there.ok()) {
    reasons.push_back(
        fmt::format("domain {} ({}) with the same UUID is here already", there->name, there->id));
  }
  const json parsed = json::parse(blueprint.configuration, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || TypeIn(parsed) != "pvh") {
    reasons.emplace_back("its configuration is not that of a PVH domain");
  }
  return reasons;
}

}  // namespace ramferry
