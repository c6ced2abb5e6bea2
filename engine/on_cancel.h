// Does something once when a migration is cancelled, as long as this object lives.
//
//   const OnCancel watch(cancel, [&] { channel.Abort(); });
//   channel.Flush(deadline);              // ends soon after a cancellation
//
// The action runs on a thread of this object, at most 20 ms after the request; the destructor waits
// for it. It must not block.
#pragma once

#include <functional>
#include <thread>

#include "base/cancellation.h"

namespace ramferry {

class OnCancel {
 public:
  OnCancel(const Cancellation& cancel, std::function<void()> action);

 private:
  std::jthread thread_;
};

}  // namespace ramferry
