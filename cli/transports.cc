#include "cli/transports.h"

#include <utility>

#include "base/status.h"
#include "cli/host_address.h"
#include "transport/tcp/tcp_connector.h"
#include "transport/tcp/tcp_listener.h"
#ifdef RAMFERRY_RDMA
#include "transport/rdma/rdma_transport.h"
#endif

namespace ramferry {
namespace {

TcpOptions TcpOptionsOf(const Settings& settings, bool encryption) {
  return {.encryption = encryption,
          .ca_file = settings.ca,
          .certificate_file = settings.certificate,
          .key_file = settings.key};
}

// Why RDMA is not to be used, or OK.
absl::Status RdmaWanted(const Settings& settings) {
  if (settings.transport == "tcp") return absl::FailedPreconditionError("transport is tcp");
  if (settings.encryption() == DataEncryption::kOn) {
    return absl::FailedPreconditionError(
        "guest memory over RDMA is not encrypted: it does not go with encryption = on");
  }
#ifdef RAMFERRY_RDMA
  return rdma::RdmaUsable();
#else
  return absl::FailedPreconditionError(
      "this ramferry was built without RDMA: install libibverbs-dev and librdmacm-dev and build "
      "again");
#endif
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<ChannelConnector>>> MakeConnectors(
    const std::string& destination_host, const Settings& settings, const Cancellation& cancel) {
  std::vector<std::unique_ptr<ChannelConnector>> connectors;
  const absl::Status rdma = RdmaWanted(settings);
  if (settings.transport == "rdma" && !rdma.ok()) return rdma;
#ifdef RAMFERRY_RDMA
  if (rdma.ok()) {
    connectors.push_back(std::make_unique<rdma::RdmaConnector>(
        rdma::RdmaOptions{.pin_budget = MiB(static_cast<uint64_t>(settings.pin_budget_mib)),
                          .cancel_fd = cancel.fd()}));
  }
#endif
  if (settings.transport == "rdma") return connectors;
  const bool plain =
      settings.encryption() == DataEncryption::kOff ||
      (settings.encryption() == DataEncryption::kAuto && IsThisMachine(destination_host));
  TcpOptions options = TcpOptionsOf(settings, !plain);
  options.cancel_fd = cancel.fd();
  ASSIGN_OR_RETURN(auto tcp, TcpConnector::Create(options));
  connectors.push_back(std::move(tcp));
  return connectors;
}

absl::StatusOr<std::vector<std::unique_ptr<ChannelListener>>> MakeListeners(
    const Settings& settings) {
  std::vector<std::unique_ptr<ChannelListener>> listeners;
  const DataEncryption encryption = settings.encryption();
  const absl::Status rdma = RdmaWanted(settings);
  if (settings.transport == "rdma" && !rdma.ok()) return rdma;
#ifdef RAMFERRY_RDMA
  if (rdma.ok()) {
    listeners.push_back(std::make_unique<rdma::RdmaListener>(
        rdma::RdmaOptions{.address = settings.listen == "::" ? "" : settings.listen,
                          .pin_budget = MiB(static_cast<uint64_t>(settings.pin_budget_mib))}));
  }
#endif
  const std::string everywhere = settings.listen == "::" ? "" : settings.listen;
  const auto port = static_cast<uint16_t>(settings.page_port);
  if (encryption != DataEncryption::kOn) {
    const bool local_only = encryption == DataEncryption::kAuto;
    ASSIGN_OR_RETURN(auto plain, TcpListener::Create(local_only ? "127.0.0.1" : everywhere,
                                                     local_only ? uint16_t{0} : port,
                                                     TcpOptionsOf(settings, false)));
    listeners.push_back(std::move(plain));
  }
  if (encryption != DataEncryption::kOff) {
    ASSIGN_OR_RETURN(auto encrypted,
                     TcpListener::Create(everywhere, port, TcpOptionsOf(settings, true)));
    listeners.push_back(std::move(encrypted));
  }
  return listeners;
}

}  // namespace ramferry
