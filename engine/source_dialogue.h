// The source's side of the talk over the control channel (transport/control_channel.h): one
// message is due, and whatever else comes is told as what it is.
//
//   RETURN_IF_ERROR(Introduce(control, cancel, id, answer_time));
//   RETURN_IF_ERROR(control.Send(Reserve{...}));
//   ASSIGN_OR_RETURN(const Reserved reserved, Expect<Reserved>(control, cancel, In(answer_time)));
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <variant>

#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "base/deadline.h"
#include "base/status.h"
#include "engine/cancellable_receive.h"
#include "transport/control_channel.h"

namespace ramferry {

// Why `message` came where `wanted` was due: FailedPrecondition for a refusal, with every reason;
// Aborted where the destination gave up; InvalidArgument for anything else.
[[nodiscard]] absl::Status NotExpected(const ControlMessage& message, const char* wanted);

// The next message, which must be a Message. DeadlineExceeded: the destination does not answer;
// else as NotExpected, or the error of the cancellation or the channel.
template <class Message>
[[nodiscard]] absl::StatusOr<Message> Expect(ControlChannel& control, const Cancellation& cancel,
                                             Deadline deadline) {
  auto message = ReceiveUnlessCancelled(control, cancel, deadline);
  if (absl::IsDeadlineExceeded(message.status())) {
    return absl::DeadlineExceededError("the destination does not answer");
  }
  RETURN_IF_ERROR(message.status());
  if (auto* wanted = std::get_if<Message>(&*message)) return std::move(*wanted);
  return NotExpected(*message, NameOf(ControlMessage(Message{})));
}

// Says who we are and agrees on a version. FailedPrecondition: there is none that both speak.
[[nodiscard]] absl::StatusOr<HelloReply> Introduce(ControlChannel& control,
                                                   const Cancellation& cancel,
                                                   const std::string& migration_id,
                                                   std::chrono::milliseconds answer_time);

// Whether the destination would take the guest: it prepares everything, as for a migration, and is
// then told to undo that. Returns what it offered. The guest need not be attached; nothing touches
// it. FailedPrecondition: it refuses, with every reason.
[[nodiscard]] absl::StatusOr<Reserved> AskForRoom(ControlChannel& control,
                                                  const Cancellation& cancel,
                                                  const GuestDescription& guest,
                                                  std::chrono::milliseconds answer_time);

}  // namespace ramferry
