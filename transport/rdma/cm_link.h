// The real thing behind verbs.h: librdmacm connections and libibverbs queue pairs.
//
// A CmLink owns its rdma_cm_id with queue pair, completion queue and completion channel. While a
// link is there, asynchronous events of its device (queue pair error, port down, device gone)
// interrupt it, each with words of its own; so does a disconnect, where the link has an event
// channel of its own.
#pragma once

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "transport/rdma/needs.h"
#include "transport/rdma/verbs.h"

namespace ramferry::rdma {

class CmMemory : public Memory {
 public:
  // `on_demand`: guest memory is not pinned, the device faults its pages in (ibv_reg_mr(3)).
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<CmMemory>> Create(ibv_context* device,
                                                                        bool on_demand);
  ~CmMemory() override;

  [[nodiscard]] absl::StatusOr<Registration> Register(const std::byte* address, uint64_t length,
                                                      Access access) override;
  [[nodiscard]] uint64_t largest_registration() const override;
  [[nodiscard]] size_t most_registrations() const override;
  [[nodiscard]] const DeviceLimits& limits() const { return limits_; }
  [[nodiscard]] ibv_pd* pd() const { return pd_; }
  [[nodiscard]] ibv_context* device() const { return device_; }

 private:
  CmMemory(ibv_context* device, ibv_pd* pd, DeviceLimits limits, bool on_demand)
      : device_(device), pd_(pd), limits_(std::move(limits)), on_demand_(on_demand) {}
  void Deregister(void* handle) override;

  ibv_context* device_;
  ibv_pd* pd_;
  const DeviceLimits limits_;
  const bool on_demand_;
};

struct EventChannelDeleter {
  void operator()(rdma_event_channel* channel) const { rdma_destroy_event_channel(channel); }
};
using EventChannel = std::unique_ptr<rdma_event_channel, EventChannelDeleter>;

class DeviceWatch;

// What a person wants otherwise than it comes about by itself; empty: as it comes.
struct PathWishes {
  std::optional<uint8_t> traffic_class;  // RoCE: DSCP and ECN of the packets
  std::optional<uint8_t> service_level;  // 0 to 15; RoCE: the priority in a VLAN tag
};

class CmLink : public Link {
 public:
  // Takes over `id`, which has a device (address resolved, or a connection request), and makes a
  // queue pair in the protection domain for it. `events` is the id's own event channel, or null
  // when somebody else watches it.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<CmLink>> Create(rdma_cm_id* id,
                                                                      EventChannel events,
                                                                      const CmMemory& memory,
                                                                      PathWishes wishes);
  ~CmLink() override;

  [[nodiscard]] const LinkLimits& limits() const override { return limits_; }
  [[nodiscard]] absl::Status Post(ibv_send_wr* chain) override;
  [[nodiscard]] absl::Status PostReceive(ibv_recv_wr* chain) override;
  [[nodiscard]] absl::StatusOr<size_t> Poll(std::span<ibv_wc> completions) override;
  void Wait(Deadline deadline) override;
  void Interrupt(absl::Status reason) override;

  [[nodiscard]] rdma_cm_id* id() const { return id_; }
  // The queue pair is librdmacm's business only by its number: which way it sends is set here.
  [[nodiscard]] uint32_t queue_pair() const { return qp_->qp_num; }
  // Makes the queue pair ready for the peer that the id knows by now: when its response has come,
  // or before its request is accepted.
  [[nodiscard]] absl::Status BringUp();
  // "rxe0 port 1, GID 1 10.9.0.1 (RoCE v2), MTU 4096, traffic class 0, service level 0"; when up.
  [[nodiscard]] std::string Describe() const;

 private:
  friend class DeviceWatch;
  CmLink(rdma_cm_id* id, EventChannel events, PathWishes wishes);
  [[nodiscard]] absl::Status Prepare(const CmMemory& memory);
  [[nodiscard]] absl::Status Move(ibv_qp_state state);
  // Whether the address that the queue pair sends from is still what it was.
  [[nodiscard]] bool HasItsGid();
  void TakeConnectionEvent();

  rdma_cm_id* id_;
  EventChannel events_;
  const PathWishes wishes_;
  ibv_qp* qp_ = nullptr;
  std::shared_ptr<DeviceWatch> watch_;
  ibv_comp_channel* completions_ = nullptr;
  ibv_cq* cq_ = nullptr;
  unsigned unacknowledged_ = 0;
  LinkLimits limits_;
  ibv_wc early_{};  // taken by Wait while going to sleep
  bool has_early_ = false;

  UniqueFd interrupt_fd_;
  std::atomic<bool> interrupted_{false};
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  absl::Status reason_;
  ibv_ah_attr path_{};   // when up
  ibv_gid_entry gid_{};  // what path_ sends from, if it sends from one
};

// The next event of `channel` by the deadline, which must be of `expected`; anything else is an
// error in words. The event must be acknowledged (rdma_ack_cm_event). Cancelled once `cancel_fd` is
// readable; -1: nothing cancels.
[[nodiscard]] absl::StatusOr<rdma_cm_event*> AwaitEvent(rdma_event_channel* channel,
                                                        rdma_cm_event_type expected,
                                                        Deadline deadline, int cancel_fd);

}  // namespace ramferry::rdma
