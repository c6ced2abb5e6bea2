// Places for the messages of a channel (wire.h) in registered memory, and posting them on its link.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/local_pages.h"
#include "transport/rdma/verbs.h"
#include "transport/rdma/wire.h"

namespace ramferry::rdma {

// Must not outlive its Memory, nor go while one of its requests is in flight. Used by the thread
// that uses the link.
class MessageSlots {
 public:
  MessageSlots() = default;  // none
  [[nodiscard]] static absl::StatusOr<MessageSlots> Create(Memory& memory, uint32_t count);

  Message& operator[](uint64_t slot) { return messages_[slot]; }

  // Sends what is in the slot, with a completion; until that it must stay as it is.
  [[nodiscard]] absl::Status Send(Link& link, uint64_t slot);
  // Writes range 0 of the message in the slot to the peer's memory, with a completion.
  [[nodiscard]] absl::Status WriteRange(Link& link, uint64_t slot, uint64_t address, uint32_t rkey);
  // The next message comes into the slot, whose number is then in the completion's wr_id.
  [[nodiscard]] absl::Status Receive(Link& link, uint64_t slot);

 private:
  [[nodiscard]] ibv_sge Element(uint64_t slot) const;

  LocalVector<Message> messages_;
  Registration registration_;
};

}  // namespace ramferry::rdma
