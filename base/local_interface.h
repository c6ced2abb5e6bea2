// The network interfaces of this host and their addresses.
#pragma once

#include <string>
#include <vector>

namespace ramferry {

// The interface that packets to a numeric IPv4 or IPv6 address leave by now, as the kernel routes
// them; "" if nobody can tell. Nothing is sent.
[[nodiscard]] std::string InterfaceTowards(const std::string& address);

// The numeric IPv4 and IPv6 addresses of an interface, but for link-local ones; none if there is no
// such interface.
[[nodiscard]] std::vector<std::string> AddressesOfInterface(const std::string& name);

}  // namespace ramferry
