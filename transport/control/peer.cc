#include "transport/control/peer.h"

#include <fmt/format.h>
#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include "transport/control/text_check.h"

namespace ramferry {

std::vector<std::string> NamesOfPeer(const grpc::AuthContext& context) {
  std::vector<std::string> names;
  if (!context.IsPeerAuthenticated()) return names;
  for (const char* property : {GRPC_PEER_DNS_PROPERTY_NAME, GRPC_X509_CN_PROPERTY_NAME}) {
    if (!names.empty()) break;
    for (const grpc::string_ref& value : context.FindPropertyValues(property)) {
      const std::string_view name(value.data(), value.size());
      if (!name.empty() && IsPrintableText(name, TextKind::kLine)) names.emplace_back(name);
    }
  }
  return names;
}

std::string AddressOfPeer(std::string_view uri) {
  if (const size_t scheme = uri.find(':'); scheme != uri.npos) uri.remove_prefix(scheme + 1);
  uri = uri.substr(0, uri.rfind(':'));
  std::string address;
  for (size_t i = 0; i < uri.size(); ++i) {
    const std::string_view three = uri.substr(i, 3);
    if (three == "%5B" || three == "%5D") {
      i += 2;
    } else if (three == "%25") {  // before the zone of a link-local address
      address += '%';
      i += 2;
    } else if (uri[i] != '[' && uri[i] != ']') {
      address += uri[i];
    }
  }
  return address;
}

std::string HostAndPort(std::string_view host, uint16_t port) {
  return host.find(':') == host.npos ? fmt::format("{}:{}", host, port)
                                     : fmt::format("[{}]:{}", host, port);
}

}  // namespace ramferry
