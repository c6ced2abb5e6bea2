// Who a gRPC peer is: names from its proven certificate, and addresses.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace grpc {
class AuthContext;
}

namespace ramferry {

// The DNS names of the peer's certificate, else its common name. Empty for a peer without one.
[[nodiscard]] std::vector<std::string> NamesOfPeer(const grpc::AuthContext& context);

// The numeric host of gRPC's "ipv4:192.0.2.1:50000" or "ipv6:%5B2001:db8::1%5D:50000".
[[nodiscard]] std::string AddressOfPeer(std::string_view uri);

// "host:port", with brackets around an IPv6 address.
[[nodiscard]] std::string HostAndPort(std::string_view host, uint16_t port);

}  // namespace ramferry
