// Which machine and boot this is.
#pragma once

#include <string>

namespace ramferry {

// The kernel's random id of this boot (/proc/sys/kernel/random/boot_id): equal on two peers means
// that they are the same running machine. Empty when it cannot be read.
[[nodiscard]] std::string HostBootId();

// The host's own name (uname).
[[nodiscard]] std::string HostName();

// A new random UUID (RFC 4122 version 4), in lower case.
[[nodiscard]] std::string NewUuid();

}  // namespace ramferry
