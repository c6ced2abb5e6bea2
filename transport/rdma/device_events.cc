#include "transport/rdma/device_events.h"

#include "fmt/format.h"

namespace ramferry::rdma {

absl::Status Consequence(const ibv_async_event& event, const Concerned& channel) {
  const bool of_its_port = event.element.port_num == channel.port;
  switch (event.event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
      if (event.element.qp != channel.qp) break;
      return absl::UnavailableError(fmt::format("RDMA device {} gave up the queue pair: {}",
                                                channel.device,
                                                ibv_event_type_str(event.event_type)));
    case IBV_EVENT_CQ_ERR:
      if (event.element.cq != channel.cq) break;
      return absl::InternalError(
          fmt::format("RDMA device {}: the completion queue overran", channel.device));
    case IBV_EVENT_PORT_ERR:
      if (!of_its_port) break;
      return absl::UnavailableError(
          fmt::format("port {} of RDMA device {} went down: check cable and switch", channel.port,
                      channel.device));
    // Also comes when another address of the port came or went.
    case IBV_EVENT_GID_CHANGE:
      if (!of_its_port || channel.has_its_gid()) break;
      return absl::UnavailableError(
          fmt::format("port {} of RDMA device {} has lost the address (GID) in use", channel.port,
                      channel.device));
    case IBV_EVENT_LID_CHANGE:
      if (!of_its_port) break;
      return absl::UnavailableError(fmt::format("port {} of RDMA device {} was given another LID",
                                                channel.port, channel.device));
    case IBV_EVENT_DEVICE_FATAL:
      return absl::UnavailableError(
          fmt::format("RDMA device {} failed or was removed: see the kernel log", channel.device));
    default:
      break;
  }
  return absl::OkStatus();
}

absl::Status Consequence(rdma_cm_event_type event) {
  switch (event) {
    case RDMA_CM_EVENT_DISCONNECTED:
      return absl::UnavailableError("the peer closed the RDMA connection");
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      return absl::UnavailableError("the RDMA device was removed");
    case RDMA_CM_EVENT_ADDR_CHANGE:
      return absl::UnavailableError("the address of the RDMA device changed");
    case RDMA_CM_EVENT_ESTABLISHED:
    case RDMA_CM_EVENT_TIMEWAIT_EXIT:
      return absl::OkStatus();
    default:
      return absl::UnavailableError(
          fmt::format("the RDMA connection failed: {}", rdma_event_str(event)));
  }
}

}  // namespace ramferry::rdma
