// Waiting for the peer's next message, for whoever may be told meanwhile to stop.
#pragma once

#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "base/deadline.h"
#include "transport/control_channel.h"

namespace ramferry {

// control.Receive, ended by `cancel` as well: then the error is that of the cancellation. Looks at
// it every 50 ms. DeadlineExceeded: nothing came in time.
[[nodiscard]] absl::StatusOr<ControlMessage> ReceiveUnlessCancelled(ControlChannel& control,
                                                                    const Cancellation& cancel,
                                                                    Deadline deadline);

}  // namespace ramferry
