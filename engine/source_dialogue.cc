#include "engine/source_dialogue.h"

#include "base/host_identity.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace ramferry {

absl::StatusOr<ControlMessage> SourceDialogue::Receive(Deadline deadline) {
  auto message = ReceiveUnlessCancelled(control_, cancel_, deadline);
  if (absl::IsDeadlineExceeded(message.status())) {
    return absl::DeadlineExceededError("the destination does not answer");
  }
  return message;
}

absl::Status SourceDialogue::NotExpected(const ControlMessage& message, const char* wanted) {
  if (const auto* refused = std::get_if<Refused>(&message)) {
    return absl::FailedPreconditionError(fmt::format("the destination refuses the guest:\n  - {}",
                                                     fmt::join(refused->reasons, "\n  - ")));
  }
  if (const auto* abort = std::get_if<Abort>(&message)) {
    return absl::AbortedError("the destination gave up: " + abort->reason);
  }
  return absl::InvalidArgumentError(
      fmt::format("the destination sent {} where {} was due", NameOf(message), wanted));
}

absl::Status SourceDialogue::Introduce(const std::string& migration_id) {
  RETURN_IF_ERROR(Send(Hello{.software = "ramferry " RAMFERRY_VERSION,
                             .host = HostName(),
                             .boot_id = HostBootId(),
                             .migration_id = migration_id}));
  ASSIGN_OR_RETURN(const HelloReply reply, Expect<HelloReply>());
  if (reply.version < kOldestProtocolVersion || reply.version > kProtocolVersion) {
    return absl::FailedPreconditionError(fmt::format(
        "the destination ({}) wants protocol version {}, this ramferry speaks {} to {}: use the "
        "same release on both hosts",
        reply.software, reply.version, kOldestProtocolVersion, kProtocolVersion));
  }
  return absl::OkStatus();
}

absl::Status SourceDialogue::AskForRoom(const GuestDescription& guest) {
  RETURN_IF_ERROR(Introduce(NewUuid()));
  RETURN_IF_ERROR(Send(Reserve{.guest = guest, .transports = {"tcp"}}));
  RETURN_IF_ERROR(Expect<Reserved>().status());
  return Send(Abort{.reason = "it only asked whether the guest could come"});
}

}  // namespace ramferry
