// Control messages to and from their wire form, checked on the way.
//
//   v1::Frame frame;
//   RETURN_IF_ERROR(EncodeFrame(HandOver{}, frame));
//   ASSIGN_OR_RETURN(ControlMessage message, DecodeFrame(frame));
//
// Both refuse (InvalidArgument) what breaks a limit of message_check.h; DecodeFrame also refuses a
// frame of a kind it does not know, which a newer peer might send.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "transport/control_channel.h"

namespace ramferry {

namespace v1 {
class Frame;
}

// Bytes of one frame on the wire. It bounds the digests of one ImageComplete to about 20 000.
inline constexpr int kMaxFrameBytes = 1 << 20;

// Reasons (Refused, HandedBack, Abort) that are too long, too many or not printable are made to
// fit, so that a failure can always be told.
[[nodiscard]] absl::Status EncodeFrame(const ControlMessage& message, v1::Frame& frame);

[[nodiscard]] absl::StatusOr<ControlMessage> DecodeFrame(const v1::Frame& frame);

}  // namespace ramferry
