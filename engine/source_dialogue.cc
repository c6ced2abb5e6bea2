#include "engine/source_dialogue.h"

#include "base/host_identity.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace ramferry {

absl::Status NotExpected(const ControlMessage& message, const char* wanted) {
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

absl::StatusOr<HelloReply> Introduce(ControlChannel& control, const Cancellation& cancel,
                                     const std::string& migration_id,
                                     std::chrono::milliseconds answer_time) {
  RETURN_IF_ERROR(control.Send(Hello{.software = "ramferry " RAMFERRY_VERSION,
                                     .host = HostName(),
                                     .boot_id = HostBootId(),
                                     .migration_id = migration_id}));
  ASSIGN_OR_RETURN(HelloReply reply, Expect<HelloReply>(control, cancel, In(answer_time)));
  if (reply.version < kOldestProtocolVersion || reply.version > kProtocolVersion) {
    return absl::FailedPreconditionError(fmt::format(
        "the destination ({}) wants protocol version {}, this ramferry speaks {} to {}: use the "
        "same release on both hosts",
        reply.software, reply.version, kOldestProtocolVersion, kProtocolVersion));
  }
  return reply;
}

absl::StatusOr<Reserved> AskForRoom(ControlChannel& control, const Cancellation& cancel,
                                    const GuestDescription& guest,
                                    std::chrono::milliseconds answer_time) {
  RETURN_IF_ERROR(Introduce(control, cancel, NewUuid(), answer_time).status());
  RETURN_IF_ERROR(control.Send(Reserve{.guest = guest, .transports = {"tcp"}}));
  ASSIGN_OR_RETURN(Reserved reserved, Expect<Reserved>(control, cancel, In(answer_time)));
  RETURN_IF_ERROR(control.Send(Abort{.reason = "it only asked whether the guest could come"}));
  return reserved;
}

}  // namespace ramferry
