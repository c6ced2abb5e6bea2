#include "transport/rdma/cm_link.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "fmt/format.h"
#include "transport/rdma/check.h"
#include "transport/rdma/device_events.h"
#include "transport/rdma/device_watch.h"
#include "transport/rdma/pin_limit.h"
#include "transport/rdma/wire.h"

namespace ramferry::rdma {
namespace {

constexpr uint32_t kSendDepth = 256;
constexpr uint32_t kReceiveDepth = 2 * kMessageCredits;

uint32_t BytesOf(ibv_mtu mtu) {
  return 128U << static_cast<unsigned>(mtu);
}

// Kernels before 6.2 pin memory for writing even when the device only reads it, which a read-only
// mapping of a shared file refuses with EFAULT. So the pages are registered through a second,
// writable mapping of them, under the addresses of the first; pinned, they need no mapping after.
ibv_mr* RegisterThroughWritableMapping(ibv_pd* pd, const std::byte* address, uint64_t length) {
  auto* const original = const_cast<std::byte*>(address);
  // An old size of 0 duplicates a shared mapping (mremap(2)).
  void* const twin = ::mremap(original, 0, length, MREMAP_MAYMOVE);
  if (twin == MAP_FAILED) return nullptr;
  ibv_mr* mr = nullptr;
  if (::mprotect(twin, length, PROT_READ | PROT_WRITE) == 0) {
    mr = ibv_reg_mr_iova(pd, twin, length, reinterpret_cast<uintptr_t>(address), 0);
  }
  const int error = errno;
  ::munmap(twin, length);
  errno = error;
  return mr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CmMemory>> CmMemory::Create(ibv_context* device, bool on_demand) {
  ibv_device_attr attributes{};
  if (const int error = ibv_query_device(device, &attributes); error != 0) {
    return ErrnoStatus(error, fmt::format("cannot ask RDMA device {} for its limits",
                                          ibv_get_device_name(device->device)));
  }
  ibv_pd* pd = ibv_alloc_pd(device);
  if (pd == nullptr) {
    return ErrnoStatus(errno, fmt::format("no protection domain from RDMA device {}",
                                          ibv_get_device_name(device->device)));
  }
  return std::unique_ptr<CmMemory>(new CmMemory(
      device, pd, LimitsOf(ibv_get_device_name(device->device), attributes), on_demand));
}

CmMemory::~CmMemory() {
  ibv_dealloc_pd(pd_);
}

absl::StatusOr<Registration> CmMemory::Register(const std::byte* address, uint64_t length,
                                                Access access) {
  int flags = 0;
  if (access == Access::kLocalWrite) flags = IBV_ACCESS_LOCAL_WRITE;
  if (access == Access::kRemoteWrite) flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
  if (on_demand_ && access != Access::kLocalWrite) flags |= IBV_ACCESS_ON_DEMAND;
  ibv_mr* mr = ibv_reg_mr(pd_, const_cast<std::byte*>(address), length, flags);
  if (mr == nullptr && errno == EFAULT && access == Access::kLocalRead) {
    mr = RegisterThroughWritableMapping(pd_, address, length);
  }
  if (mr == nullptr) {
    const std::string what = fmt::format("RDMA device {} cannot register {} KiB",
                                         ibv_get_device_name(device_->device), length >> 10);
    if (errno == EAGAIN || errno == ENOSPC) {
      return absl::ResourceExhaustedError(
          fmt::format("{}: it has no more registrations (others hold them, or the rdma.max of a "
                      "control group does)",
                      what));
    }
    if (errno == ENOMEM) {
      return absl::ResourceExhaustedError(
          fmt::format("{}: {}; lower --pin-budget, or raise the limit", what, DescribePinLimit()));
    }
    return ErrnoStatus(errno, what);
  }
  return Registration(this, mr, mr->lkey, mr->rkey);
}

void CmMemory::Deregister(void* handle) {
  ibv_dereg_mr(static_cast<ibv_mr*>(handle));
}

uint64_t CmMemory::largest_registration() const {
  return limits_.largest_registration;
}

size_t CmMemory::most_registrations() const {
  return limits_.most_registrations;
}

CmLink::CmLink(rdma_cm_id* id, EventChannel events, PathWishes wishes)
    : id_(id), events_(std::move(events)), wishes_(wishes) {}

absl::StatusOr<std::unique_ptr<CmLink>> CmLink::Create(rdma_cm_id* id, EventChannel events,
                                                       const CmMemory& memory, PathWishes wishes) {
  std::unique_ptr<CmLink> link(new CmLink(id, std::move(events), wishes));
  RETURN_IF_ERROR(link->Prepare(memory));
  return link;
}

absl::Status CmLink::Prepare(const CmMemory& memory) {
  ibv_context* device = id_->verbs;
  const char* name = ibv_get_device_name(device->device);
  ibv_device_attr attributes{};
  ibv_port_attr port{};
  if (ibv_query_device(device, &attributes) != 0 ||
      ibv_query_port(device, id_->port_num, &port) != 0) {
    return ErrnoStatus(errno, fmt::format("cannot ask RDMA device {} for its limits", name));
  }
  const auto most = static_cast<uint32_t>(std::max(attributes.max_qp_wr, 1));
  limits_.send_depth = std::min(kSendDepth, most);
  limits_.receive_depth = std::min(kReceiveDepth, most);
  limits_.largest_message = port.max_msg_sz;
  limits_.path_mtu = BytesOf(port.active_mtu);
  if (limits_.receive_depth < kMessageCredits || limits_.send_depth < 8) {
    return absl::FailedPreconditionError(
        fmt::format("RDMA device {} allows only {} requests a queue pair: too few", name, most));
  }

  interrupt_fd_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  completions_ = ibv_create_comp_channel(device);
  if (completions_ == nullptr) {
    return ErrnoStatus(errno, fmt::format("no completion channel from RDMA device {}", name));
  }
  ::fcntl(completions_->fd, F_SETFL, ::fcntl(completions_->fd, F_GETFL) | O_NONBLOCK);
  cq_ = ibv_create_cq(device, static_cast<int>(limits_.send_depth + limits_.receive_depth), nullptr,
                      completions_, 0);
  if (cq_ == nullptr) {
    return ErrnoStatus(errno, fmt::format("no completion queue from RDMA device {}", name));
  }
  ibv_qp_init_attr init{};
  init.send_cq = cq_;
  init.recv_cq = cq_;
  init.cap = {limits_.send_depth, limits_.receive_depth, 1, 1, 0};
  init.qp_type = IBV_QPT_RC;
  init.sq_sig_all = 0;
  qp_ = ibv_create_qp(memory.pd(), &init);
  if (qp_ == nullptr) {
    return ErrnoStatus(errno, fmt::format("no queue pair from RDMA device {}", name));
  }
  RETURN_IF_ERROR(Move(IBV_QPS_INIT));  // receives may be posted
  watch_ = DeviceWatch::Of(device);
  watch_->Add(this);
  return absl::OkStatus();
}

CmLink::~CmLink() {
  if (watch_) watch_->Remove(this);
  if (qp_ != nullptr) {
    ibv_qp_attr attributes{};
    attributes.qp_state = IBV_QPS_ERR;
    ibv_modify_qp(qp_, &attributes, IBV_QP_STATE);
    rdma_disconnect(id_);
    ibv_destroy_qp(qp_);
  }
  if (cq_ != nullptr) {
    ibv_ack_cq_events(cq_, unacknowledged_);
    ibv_destroy_cq(cq_);
  }
  if (completions_ != nullptr) ibv_destroy_comp_channel(completions_);
  rdma_destroy_id(id_);
}

absl::Status CmLink::Post(ibv_send_wr* chain) {
  ibv_send_wr* bad = nullptr;
  if (const int error = ibv_post_send(qp_, chain, &bad); error != 0) {
    return ErrnoStatus(error, "the RDMA device took no more writes");
  }
  return absl::OkStatus();
}

absl::Status CmLink::PostReceive(ibv_recv_wr* chain) {
  ibv_recv_wr* bad = nullptr;
  if (const int error = ibv_post_recv(qp_, chain, &bad); error != 0) {
    return ErrnoStatus(error, "the RDMA device took no more receives");
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> CmLink::Poll(std::span<ibv_wc> completions) {
  size_t taken = 0;
  if (has_early_) {
    completions[taken++] = early_;
    has_early_ = false;
  }
  const int found =
      ibv_poll_cq(cq_, static_cast<int>(completions.size() - taken), completions.data() + taken);
  if (found < 0) return absl::InternalError("the RDMA completion queue cannot be read");
  taken += static_cast<size_t>(found);
  if (taken == 0 && interrupted_.load(std::memory_order_acquire)) {
    const std::lock_guard lock(mutex_);
    return reason_;
  }
  return taken;
}

void CmLink::Wait(Deadline deadline) {
  // Ask for a wake-up first, then look again: what comes in between is not lost.
  if (ibv_req_notify_cq(cq_, 0) != 0) return;
  if (!has_early_ && ibv_poll_cq(cq_, 1, &early_) > 0) {
    has_early_ = true;
    return;
  }
  pollfd fds[] = {{completions_->fd, POLLIN, 0},
                  {interrupt_fd_.get(), POLLIN, 0},
                  {events_ ? events_->fd : -1, POLLIN, 0}};
  const int milliseconds = deadline == Deadline::max() ? 1000 : MillisecondsLeft(deadline, 1000);
  if (::poll(fds, 3, milliseconds) <= 0) return;
  if (fds[0].revents != 0) {
    ibv_cq* cq = nullptr;
    void* context = nullptr;
    while (ibv_get_cq_event(completions_, &cq, &context) == 0) ++unacknowledged_;
  }
  if (fds[2].revents != 0) TakeConnectionEvent();
}

void CmLink::TakeConnectionEvent() {
  rdma_cm_event* event = nullptr;
  if (rdma_get_cm_event(events_.get(), &event) != 0) return;
  const rdma_cm_event_type type = event->event;
  rdma_ack_cm_event(event);
  if (absl::Status failure = Consequence(type); !failure.ok()) Interrupt(std::move(failure));
}

void CmLink::Interrupt(absl::Status reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!reason_.ok()) return;
    reason_ = std::move(reason);
  }
  interrupted_.store(true, std::memory_order_release);
  ::eventfd_write(interrupt_fd_.get(), 1);
}

absl::Status CmLink::Move(ibv_qp_state state) {
  ibv_qp_attr attributes{};
  attributes.qp_state = state;
  int mask = 0;
  if (rdma_init_qp_attr(id_, &attributes, &mask) != 0) {
    return ErrnoStatus(errno, "the RDMA connection manager does not know the connection");
  }
  if (state == IBV_QPS_RTR) {
    // Old kernels also name attributes of their own for RoCE, above those of a queue pair.
    mask &= (IBV_QP_DEST_QPN << 1) - 1;
    if (wishes_.traffic_class) attributes.ah_attr.grh.traffic_class = *wishes_.traffic_class;
    if (wishes_.service_level) attributes.ah_attr.sl = *wishes_.service_level;
    limits_.path_mtu = BytesOf(attributes.path_mtu);
    const std::lock_guard lock(mutex_);
    path_ = attributes.ah_attr;
    if (path_.is_global != 0) {
      (void)ibv_query_gid_ex(id_->verbs, id_->port_num, path_.grh.sgid_index, &gid_, 0);
    }
  }
  if (const int error = ibv_modify_qp(qp_, &attributes, mask); error != 0) {
    return ErrnoStatus(error, fmt::format("RDMA device {} does not take the queue pair's path",
                                          ibv_get_device_name(id_->verbs->device)));
  }
  return absl::OkStatus();
}

absl::Status CmLink::BringUp() {
  // Once more: what the peer may do is known only now.
  RETURN_IF_ERROR(Move(IBV_QPS_INIT));
  RETURN_IF_ERROR(Move(IBV_QPS_RTR));
  return Move(IBV_QPS_RTS);
}

bool CmLink::HasItsGid() {
  const std::lock_guard lock(mutex_);
  if (path_.is_global == 0) return true;
  ibv_gid_entry now{};
  return ibv_query_gid_ex(id_->verbs, id_->port_num, path_.grh.sgid_index, &now, 0) == 0 &&
         std::memcmp(now.gid.raw, gid_.gid.raw, sizeof now.gid.raw) == 0;
}

std::string CmLink::Describe() const {
  const std::lock_guard lock(mutex_);
  std::string text =
      fmt::format("{} port {}", ibv_get_device_name(id_->verbs->device), id_->port_num);
  if (path_.is_global != 0) {
    text += fmt::format(", GID {} {} ({})", path_.grh.sgid_index, GidAddress(gid_.gid),
                        GidKind(gid_.gid_type));
  }
  text += fmt::format(", MTU {}", limits_.path_mtu);
  if (path_.is_global != 0) text += fmt::format(", traffic class {}", path_.grh.traffic_class);
  return text + fmt::format(", service level {}", path_.sl);
}

absl::StatusOr<rdma_cm_event*> AwaitEvent(rdma_event_channel* channel, rdma_cm_event_type expected,
                                          Deadline deadline, int cancel_fd) {
  for (;;) {
    pollfd fds[] = {{channel->fd, POLLIN, 0}, {cancel_fd, POLLIN, 0}};  // poll(2) skips -1
    const int ready = ::poll(fds, 2, MillisecondsLeft(deadline));
    if (ready < 0 && errno == EINTR) continue;
    if (fds[1].revents != 0) return absl::CancelledError("connecting was cancelled");
    if (ready <= 0) {
      return absl::DeadlineExceededError(fmt::format("no {} in time", rdma_event_str(expected)));
    }
    break;
  }
  rdma_cm_event* event = nullptr;
  if (rdma_get_cm_event(channel, &event) != 0) return ErrnoStatus(errno, "rdma_get_cm_event");
  if (event->event == expected) return event;
  absl::Status status;
  if (event->event == RDMA_CM_EVENT_REJECTED) {
    const auto* text = static_cast<const char*>(event->param.conn.private_data);
    // The wire pads with zeros; an empty text is a refusal by the kernel: nobody listens.
    const std::string reason(
        text == nullptr ? "" : text,
        text == nullptr ? 0 : ::strnlen(text, event->param.conn.private_data_len));
    status = absl::UnavailableError(
        reason.empty() ? "nobody listens there any more for RDMA connections" : reason);
  } else {
    status = absl::UnavailableError(
        fmt::format("{} (error {})", rdma_event_str(event->event), event->status));
  }
  rdma_ack_cm_event(event);
  return status;
}

}  // namespace ramferry::rdma
