#include "transport/rdma/device_watch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <map>
#include <utility>

#include "transport/rdma/cm_link.h"
#include "transport/rdma/device_events.h"

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
  const std::lock_guard lock(mutex_);
  for (CmLink* link : links_) {
    absl::Status failure =
        Consequence(event, {.device = ibv_get_device_name(device_->device),
                            .qp = link->qp_,
                            .cq = link->cq_,
                            .port = link->id_->port_num,
                            .has_its_gid = [link] { return link->HasItsGid(); }});
    if (!failure.ok()) link->Interrupt(std::move(failure));
  }
}

}  // namespace ramferry::rdma
