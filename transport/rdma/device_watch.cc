#include "transport/rdma/device_watch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <map>

#include "fmt/format.h"
#include "transport/rdma/cm_link.h"

namespace ramferry::rdma {

std::shared_ptr<DeviceWatch> DeviceWatch::Of(ibv_context* device) {
  static std::mutex mutex;
  static auto& watches = *new std::map<ibv_context*, std::weak_ptr<DeviceWatch>>;
  const std::lock_guard lock(mutex);
  std::shared_ptr<DeviceWatch> watch = watches[device].lock();
  if (!watch) {
    watch.reset(new DeviceWatch(device));
    watches[device] = watch;
  }
  return watch;
}

DeviceWatch::DeviceWatch(ibv_context* device)
    : device_(device), stop_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  ::fcntl(device->async_fd, F_SETFL, ::fcntl(device->async_fd, F_GETFL) | O_NONBLOCK);
  thread_ = std::thread([this] { Run(); });
}

DeviceWatch::~DeviceWatch() {
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
}

void DeviceWatch::Add(CmLink* link) {
  const std::lock_guard lock(mutex_);
  links_.insert(link);
}

void DeviceWatch::Remove(CmLink* link) {
  const std::lock_guard lock(mutex_);
  links_.erase(link);
}

void DeviceWatch::Run() {
  for (;;) {
    pollfd fds[] = {{stop_.get(), POLLIN, 0}, {device_->async_fd, POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0) continue;
    if (fds[0].revents != 0) return;
    ibv_async_event event{};
    if (ibv_get_async_event(device_, &event) != 0) continue;
    Deliver(event);
    ibv_ack_async_event(&event);
  }
}

void DeviceWatch::Deliver(const ibv_async_event& event) {
  const char* name = ibv_event_type_str(event.event_type);
  const std::string device = ibv_get_device_name(device_->device);
  const std::lock_guard lock(mutex_);
  for (CmLink* link : links_) {
    switch (event.event_type) {
      case IBV_EVENT_QP_FATAL:
      case IBV_EVENT_QP_REQ_ERR:
      case IBV_EVENT_QP_ACCESS_ERR:
        if (event.element.qp == link->qp_) {
          link->Interrupt(absl::UnavailableError(
              fmt::format("RDMA device {} gave up the queue pair: {}", device, name)));
        }
        break;
      case IBV_EVENT_CQ_ERR:
        if (event.element.cq == link->cq_) {
          link->Interrupt(absl::InternalError(
              fmt::format("RDMA device {}: the completion queue overran", device)));
        }
        break;
      case IBV_EVENT_PORT_ERR:
        if (event.element.port_num == link->id_->port_num) {
          link->Interrupt(absl::UnavailableError(
              fmt::format("port {} of RDMA device {} went down: check cable and switch",
                          event.element.port_num, device)));
        }
        break;
      // Also comes when another address of the port came or went.
      case IBV_EVENT_GID_CHANGE:
        if (event.element.port_num == link->id_->port_num && !link->HasItsGid()) {
          link->Interrupt(absl::UnavailableError(
              fmt::format("port {} of RDMA device {} has lost the address (GID) in use",
                          event.element.port_num, device)));
        }
        break;
      case IBV_EVENT_LID_CHANGE:
        if (event.element.port_num == link->id_->port_num) {
          link->Interrupt(absl::UnavailableError(fmt::format(
              "port {} of RDMA device {} was given another LID", event.element.port_num, device)));
        }
        break;
      case IBV_EVENT_DEVICE_FATAL:
        link->Interrupt(absl::UnavailableError(
            fmt::format("RDMA device {} failed or was removed: see the kernel log", device)));
        break;
      default:
        break;
    }
  }
}

}  // namespace ramferry::rdma
