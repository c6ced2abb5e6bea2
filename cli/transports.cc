#include "cli/transports.h"

#include <utility>

#include "base/cpu_set.h"
#include "base/status.h"
#include "cli/host_address.h"
#include "spdlog/spdlog.h"
#include "transport/tcp/tcp_connector.h"
#include "transport/tcp/tcp_listener.h"
#ifdef RAMFERRY_RDMA
#include "transport/rdma/rdma_transport.h"
#endif
#ifdef RAMFERRY_DPDK
#include "transport/dpdk/dpdk_transport.h"
#include "transport/dpdk/poller.h"
#endif

namespace ramferry {
namespace {

TcpOptions TcpOptionsOf(const Settings& settings, bool encryption) {
  return {.encryption = encryption,
          .ca_file = settings.ca,
          .certificate_file = settings.certificate,
          .key_file = settings.key};
}

#ifdef RAMFERRY_RDMA
rdma::RdmaOptions RdmaOptionsOf(const Settings& settings) {
  const auto wish = [](int64_t value) {
    return value < 0 ? std::nullopt : std::optional(static_cast<uint8_t>(value));
  };
  return {.address = settings.rdma_address,
          .pin_budget = MiB(static_cast<uint64_t>(settings.pin_budget_mib)),
          .traffic_class = wish(settings.rdma_traffic_class),
          .service_level = wish(settings.rdma_service_level)};
}
#endif

// Why RDMA is not to be used, or OK.
absl::Status RdmaWanted(const Settings& settings) {
  if (settings.transport != "rdma" && settings.transport != "auto") {
    return absl::FailedPreconditionError("transport is " + settings.transport);
  }
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

// Why DPDK is not to be used, or OK.
absl::Status DpdkWanted(const Settings& settings) {
  if (settings.transport != "dpdk" && settings.transport != "auto") {
    return absl::FailedPreconditionError("transport is " + settings.transport);
  }
  if (settings.dpdk_device.empty()) {
    return absl::FailedPreconditionError(
        "no DPDK port is set up: see dpdk.device and dpdk.address in the configuration");
  }
#ifdef RAMFERRY_DPDK
  return absl::OkStatus();
#else
  return absl::FailedPreconditionError(
      "this ramferry was built without DPDK: install libdpdk-dev and liblwip-dev and build again");
#endif
}

// What does not work is left out in "auto", and said.
absl::Status LeaveOut(const Settings& settings, const absl::Status& why) {
  if (settings.transport == "dpdk") return why;
  spdlog::warn("no DPDK: {}", Message(why));
  return absl::OkStatus();
}

}  // namespace

#ifdef RAMFERRY_DPDK
dpdk::DpdkOptions DpdkOptionsOf(const Settings& settings) {
  return {.device = settings.dpdk_device,
          .address = settings.dpdk_address,
          .gateway = settings.dpdk_gateway,
          .vlan = static_cast<uint32_t>(settings.dpdk_vlan),
          .mtu = static_cast<uint32_t>(settings.dpdk_mtu),
          .cpus = *ParseCpuSet(settings.dpdk_cpus),
          .hugepages = settings.dpdk_hugepages,
          .memory_mib = static_cast<uint32_t>(settings.dpdk_memory_mib)};
}
#endif

absl::StatusOr<std::vector<std::unique_ptr<ChannelConnector>>> MakeConnectors(
    const std::string& destination_host, const Settings& settings, const Cancellation& cancel) {
  std::vector<std::unique_ptr<ChannelConnector>> connectors;
  const absl::Status rdma = RdmaWanted(settings);
  if (settings.transport == "rdma" && !rdma.ok()) return rdma;
#ifdef RAMFERRY_RDMA
  if (rdma.ok()) {
    rdma::RdmaOptions options = RdmaOptionsOf(settings);
    options.cancel_fd = cancel.fd();
    connectors.push_back(std::make_unique<rdma::RdmaConnector>(std::move(options)));
  }
#endif
  if (settings.transport == "rdma") return connectors;
  const bool plain =
      settings.encryption() == DataEncryption::kOff ||
      (settings.encryption() == DataEncryption::kAuto && IsThisMachine(destination_host));
  TcpOptions options = TcpOptionsOf(settings, !plain);
  options.cancel_fd = cancel.fd();
  const absl::Status dpdk = DpdkWanted(settings);
  if (settings.transport == "dpdk" && !dpdk.ok()) return dpdk;
#ifdef RAMFERRY_DPDK
  if (dpdk.ok()) {
    auto poller = dpdk::Poller::Get(DpdkOptionsOf(settings));
    if (poller.ok()) {
      ASSIGN_OR_RETURN(auto connector, dpdk::DpdkConnector::Create(*poller, options));
      connectors.push_back(std::move(connector));
    } else {
      RETURN_IF_ERROR(LeaveOut(settings, poller.status()));
    }
  }
#endif
  if (settings.transport == "dpdk") return connectors;
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
    rdma::RdmaOptions options = RdmaOptionsOf(settings);
    if (options.address.empty() && settings.listen != "::") options.address = settings.listen;
    listeners.push_back(std::make_unique<rdma::RdmaListener>(std::move(options)));
  }
#endif
  const absl::Status dpdk = DpdkWanted(settings);
  if (settings.transport == "dpdk" && !dpdk.ok()) return dpdk;
#ifdef RAMFERRY_DPDK
  if (dpdk.ok()) {
    auto poller = dpdk::Poller::Get(DpdkOptionsOf(settings));
    if (poller.ok()) {
      // Whoever comes by this port is not on this machine.
      ASSIGN_OR_RETURN(
          auto listener,
          dpdk::DpdkListener::Create(*poller, static_cast<uint16_t>(settings.page_port),
                                     TcpOptionsOf(settings, encryption != DataEncryption::kOff)));
      listeners.push_back(std::move(listener));
    } else {
      RETURN_IF_ERROR(LeaveOut(settings, poller.status()));
    }
  }
#endif
  if (settings.transport == "dpdk") return listeners;
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
