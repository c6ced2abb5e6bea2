// One migration's stream, seen from one end: the bounded queues and the order of operations between
// the callers of a ControlChannel and gRPC's callbacks. Knows nothing of gRPC itself.
//
// gRPC allows one read and one write at a time, and nothing at all after the end has been asked
// for. So every change of state goes through Pump(), which one thread at a time runs until nothing
// is left to be started: it looks with the lock held, and starts with the lock released.
//
// Ends: the client says that it is finished with a half-close, the server by ending the call; both
// travel behind everything that was sent before, so nothing is lost by closing. A server ends the
// call as soon as it has read the client's half-close, so a client knows by the end of the call
// that everything it sent has been read.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "transport/control/control.pb.h"
#include "transport/control_channel.h"

namespace ramferry {

class ControlStream : public ControlChannel {
 public:
  enum class Side { kClient, kServer };
  // Messages held on the way in and on the way out; then the sender waits.
  static constexpr size_t kQueueLength = 16;

  absl::Status Send(const ControlMessage& message) override;
  absl::StatusOr<ControlMessage> Receive(Deadline deadline) override;
  [[nodiscard]] const std::string& peer_name() const override { return peer_name_; }
  [[nodiscard]] const std::string& peer_address() const override { return peer_address_; }
  // Sends what is queued, then the end. Messages that come in are no longer kept.
  void Close() override;

  // Breaks the call off; what is queued is lost.
  void Cancel();
  // True when the call is over; everything sent before a Close has then reached the peer, unless
  // the connection was lost. False at the deadline.
  bool WaitEnded(Deadline deadline);

 protected:
  explicit ControlStream(Side side) : side_(side) {}

  // To be called before the first operation.
  void SetPeer(std::string name, std::string address);

  // The operations of gRPC. Called without a lock, never after StartEnd (server) or Release.
  virtual void StartRead(v1::Frame* frame) = 0;
  virtual void StartWrite(const v1::Frame* frame) = 0;
  virtual void StartEnd() = 0;  // client: half-close; server: end the call
  virtual void Release() = 0;   // client: no operation will follow; the server needs none
  virtual void StartCancel() = 0;

  // What gRPC reports.
  void Begin();  // operations may be started
  void ReadDone(bool ok);
  void WriteDone(bool ok);
  void EndDone();  // client: the half-close was written
  void Lost();     // server: the call was cancelled or its connection lost
  void Ended(absl::Status status);

 private:
  enum class Step { kNothing, kRead, kWrite, kEnd, kRelease, kCancel };
  Step Next();                               // lock held
  void Pump(std::unique_lock<std::mutex>&);  // lock held on entry and on return
  absl::Status LossLocked() const;           // why nothing more can be sent or received

  const Side side_;
  std::string peer_name_;
  std::string peer_address_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<ControlMessage> inbound_;
  std::deque<std::unique_ptr<v1::Frame>> outbound_;  // the first one is being written if writing_
  v1::Frame reading_frame_;                          // gRPC's while reading_
  bool begun_ = false;
  bool pumping_ = false;
  bool reading_ = false;
  bool writing_ = false;
  bool ending_ = false;  // StartEnd was called
  bool end_done_ = false;
  bool released_ = false;
  bool closed_ = false;     // by this side
  bool read_over_ = false;  // nothing more will come in
  bool write_failed_ = false;
  bool lost_ = false;
  bool cancel_wanted_ = false;
  bool cancelled_ = false;
  bool ended_ = false;
  absl::Status nonsense_;  // what was wrong with what the peer sent
  absl::Status end_status_;
};

}  // namespace ramferry
