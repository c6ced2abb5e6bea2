// What would keep a domain from being moved: looked for before anything is touched.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "hypervisor-glue/xen/blueprint.h"
#include "hypervisor-glue/xen/xen_control.h"

namespace ramferry {

// Every reason of this domain, each with what to do; none: it can be moved. `configuration` is
// libxl's, as JSON.
[[nodiscard]] absl::StatusOr<std::vector<std::string>> XenSourceReasons(
    const XenControl& xen, const XenDomain& domain, const std::string& configuration);

// Every reason of this host against a domain that wants to come.
[[nodiscard]] std::vector<std::string> XenDestinationReasons(const XenControl& xen,
                                                             const XenBlueprint& blueprint);

// The guest has Xen drivers: it must be asked to suspend, and does it itself. Others are suspended
// without asking, and never notice.
[[nodiscard]] bool SuspendsItself(const XenControl& xen, const XenDomain& domain);

}  // namespace ramferry
