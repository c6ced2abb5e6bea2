#include "engine/cancellable_receive.h"

#include <algorithm>
#include <chrono>

#include "base/status.h"

namespace ramferry {

absl::StatusOr<ControlMessage> ReceiveUnlessCancelled(ControlChannel& control,
                                                      const Cancellation& cancel,
                                                      Deadline deadline) {
  constexpr std::chrono::milliseconds kGlance{50};
  for (;;) {
    RETURN_IF_ERROR(cancel.status());
    auto message = control.Receive(std::min(deadline, In(kGlance)));
    if (!absl::IsDeadlineExceeded(message.status()) || Clock::now() >= deadline) return message;
  }
}

}  // namespace ramferry
