// A domain's state besides its memory, as records of Xen's migration stream.
#pragma once

#include "absl/status/statusor.h"
#include "hypervisor-glue/xen/blueprint.h"
#include "hypervisor-glue/xen/migration_stream.h"
#include "hypervisor-glue/xen/xen_control.h"

namespace ramferry {

// What the guest was told about its CPUs: fixed from its start on. Fills in both policies.
[[nodiscard]] absl::Status ReadCpuPolicy(const XenControl& xen, const XenDomain& domain,
                                         XenBlueprint& blueprint);

// TSC_INFO, HVM_PARAMS and HVM_CONTEXT of a suspended domain (CheckSavedRecords).
[[nodiscard]] absl::StatusOr<Bytes> SaveRecords(const XenControl& xen, const XenDomain& domain);

}  // namespace ramferry
