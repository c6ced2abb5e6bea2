// Stage 0: every reason why this guest cannot be moved, each with what to change.
//
// Pure functions of inventories, so that each reason has a test; nothing is touched.
#pragma once

#include <string>
#include <vector>

#include "base/guest_description.h"
#include "hypervisor-glue/qemu/inventory.h"

namespace ramferry {

// Reasons that the source host alone can see. Empty: it can be moved.
[[nodiscard]] std::vector<std::string> SourceReasons(const QemuInventory& inventory);

// Reasons why this destination QEMU cannot take the guest described.
[[nodiscard]] std::vector<std::string> DestinationReasons(const GuestDescription& guest,
                                                          const QemuInventory& destination);

// The description to send.
[[nodiscard]] GuestDescription Describe(const QemuInventory& inventory);

// "the guest cannot be moved:" and the reasons, one a line.
[[nodiscard]] std::string JoinReasons(const std::vector<std::string>& reasons);

}  // namespace ramferry
