// The source's side of the talk over the control channel (transport/control_channel.h): one
// message is due, and whatever else comes is told as what it is.
//
//   SourceDialogue dialogue(control, cancel, options.answer_time);
//   RETURN_IF_ERROR(dialogue.Introduce(id));
//   RETURN_IF_ERROR(dialogue.Send(Reserve{...}));
//   ASSIGN_OR_RETURN(const Reserved reserved, dialogue.Expect<Reserved>());
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

class SourceDialogue {
 public:
  // `answer_time`: how long an answer is waited for. Both referred to must outlive the dialogue.
  SourceDialogue(ControlChannel& control, const Cancellation& cancel,
                 std::chrono::milliseconds answer_time)
      : control_(control), cancel_(cancel), answer_time_(answer_time) {}

  [[nodiscard]] absl::Status Send(const ControlMessage& message) { return control_.Send(message); }

  // The next message, which must be a Message. DeadlineExceeded: the destination does not answer;
  // FailedPrecondition: it refuses, with every reason; Aborted: it gave up; InvalidArgument: it
  // sent something else; or the error of the cancellation or the channel.
  template <class Message>
  [[nodiscard]] absl::StatusOr<Message> Expect() {
    return Expect<Message>(answer_time_);
  }
  template <class Message>
  [[nodiscard]] absl::StatusOr<Message> Expect(std::chrono::milliseconds time) {
    ASSIGN_OR_RETURN(ControlMessage message, Receive(In(time)));
    if (auto* wanted = std::get_if<Message>(&message)) return std::move(*wanted);
    return NotExpected(message, NameOf(ControlMessage(Message{})));
  }

  // Says who we are and agrees on a version. FailedPrecondition: there is none that both speak.
  [[nodiscard]] absl::Status Introduce(const std::string& migration_id);

  // Whether the destination would take the guest: it prepares everything, as for a migration, and
  // is then told to undo that. The whole of a dialogue. Nothing touches the guest, which need not
  // be attached. FailedPrecondition: it would not, with every reason.
  [[nodiscard]] absl::Status AskForRoom(const GuestDescription& guest);

 private:
  [[nodiscard]] absl::StatusOr<ControlMessage> Receive(Deadline deadline);
  [[nodiscard]] static absl::Status NotExpected(const ControlMessage& message, const char* wanted);

  ControlChannel& control_;
  const Cancellation& cancel_;
  const std::chrono::milliseconds answer_time_;
};

}  // namespace ramferry
