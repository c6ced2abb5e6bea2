// Tells the network where the guest's addresses are now.
#pragma once

#include "absl/status/status.h"
#include "hypervisor-glue/qemu/qmp_client.h"

namespace ramferry {

// Five self-announcements (RARP, or the guest's own where its driver can) over half a second, which
// switches learn from; the timing is QEMU's default for migration. Returns at once.
[[nodiscard]] inline absl::Status AnnounceSelf(QmpClient& qmp) {
  return qmp.Execute("announce-self", {{"initial", 50}, {"max", 550}, {"rounds", 5}, {"step", 100}})
      .status();
}

}  // namespace ramferry
