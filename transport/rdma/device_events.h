// What happens to a device and a connection while pages are sent (asynchronous events of the
// device, events of the connection manager), and what it means for one queue pair: nothing, or that
// its channel has failed, with words of its own. Pure functions: device_watch.cc and cm_link.cc
// bring the events.
#pragma once

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"

namespace ramferry::rdma {

// Whom an event may concern.
struct Concerned {
  std::string device;
  const ibv_qp* qp = nullptr;
  const ibv_cq* cq = nullptr;
  uint8_t port = 0;
  // Whether the address that the queue pair sends from is still what it was.
  std::function<bool()> has_its_gid;
};

// Why the channel has failed; OK: the event changes nothing for it. Source: ibv_get_async_event(3).
[[nodiscard]] absl::Status Consequence(const ibv_async_event& event, const Concerned& channel);

// The same for an event of an established connection. Source: rdma_get_cm_event(3).
[[nodiscard]] absl::Status Consequence(rdma_cm_event_type event);

}  // namespace ramferry::rdma
