#include "transport/rdma/message_slots.h"

#include "base/status.h"

namespace ramferry::rdma {

absl::StatusOr<MessageSlots> MessageSlots::Create(Memory& memory, uint32_t count) {
  MessageSlots slots;
  slots.messages_.resize(count);
  ASSIGN_OR_RETURN(slots.registration_,
                   memory.Register(reinterpret_cast<const std::byte*>(slots.messages_.data()),
                                   sizeof(Message) * count, Access::kLocalWrite));
  return slots;
}

ibv_sge MessageSlots::Element(uint64_t slot) const {
  return {reinterpret_cast<uintptr_t>(&messages_[slot]), sizeof(Message), registration_.lkey()};
}

absl::Status MessageSlots::Send(Link& link, uint64_t slot) {
  ibv_sge element = Element(slot);
  ibv_send_wr request{};
  request.opcode = IBV_WR_SEND;
  request.send_flags = IBV_SEND_SIGNALED;
  request.sg_list = &element;
  request.num_sge = 1;
  return link.Post(&request);
}

absl::Status MessageSlots::WriteRange(Link& link, uint64_t slot, uint64_t address, uint32_t rkey) {
  ibv_sge element{reinterpret_cast<uintptr_t>(&messages_[slot].ranges[0]), sizeof(WireRange),
                  registration_.lkey()};
  ibv_send_wr request{};
  request.opcode = IBV_WR_RDMA_WRITE;
  request.send_flags = IBV_SEND_SIGNALED;
  request.sg_list = &element;
  request.num_sge = 1;
  request.wr.rdma.remote_addr = address;
  request.wr.rdma.rkey = rkey;
  return link.Post(&request);
}

absl::Status MessageSlots::Receive(Link& link, uint64_t slot) {
  ibv_sge element = Element(slot);
  ibv_recv_wr request{};
  request.wr_id = slot;
  request.sg_list = &element;
  request.num_sge = 1;
  return link.PostReceive(&request);
}

}  // namespace ramferry::rdma
