// The device-state stream between Ramferry and one QEMU: a socket pair, one end handed to QEMU by
// name (QMP getfd), so that no path, port or right in a file system is needed.
//
//   source:       ASSIGN_OR_RETURN(auto pipe, StatePipe::Open(qmp)); pipe->StartReading(sink);
//                 qmp.Execute("migrate", {{"uri", pipe->uri()}}); ... pipe->Finish(deadline)
//   destination:  qmp.Execute("migrate-incoming", {{"uri", pipe->uri()}}); pipe->Write(bytes,
//   deadline)
//
// Reading happens on a thread of the pipe, which ends with QEMU's end of the stream or with Close.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/unique_fd.h"
#include "hypervisor-glue/guest.h"
#include "hypervisor-glue/qemu/qmp_client.h"

namespace ramferry {

class StatePipe {
 public:
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<StatePipe>> Open(QmpClient& qmp);
  ~StatePipe() { Close(); }

  [[nodiscard]] std::string uri() const;  // for migrate and migrate-incoming

  // Hands everything QEMU writes to `sink`, from a thread of this object, until QEMU closes.
  void StartReading(DeviceStateSink sink);
  // Waits for QEMU to close, with everything handed over; the sink's first error, if it had one.
  [[nodiscard]] absl::Status WaitEnd();

  [[nodiscard]] absl::Status Write(std::span<const std::byte> bytes, Deadline deadline);
  void CloseWrite();

  // Ends the reading and closes our end: QEMU sees the stream break. Idempotent.
  void Close();

 private:
  explicit StatePipe(UniqueFd ours) : ours_(std::move(ours)) {}
  void Read(const DeviceStateSink& sink);

  UniqueFd ours_;
  std::thread reader_;
  absl::Status result_;  // of the reader; valid after it was joined
};

}  // namespace ramferry
