// Which network interface of this host leads to an address.
#pragma once

#include <string>

namespace ramferry {

// The interface that packets to a numeric IPv4 or IPv6 address leave by now, as the kernel routes
// them; "" if nobody can tell. Nothing is sent.
[[nodiscard]] std::string InterfaceTowards(const std::string& address);

}  // namespace ramferry
