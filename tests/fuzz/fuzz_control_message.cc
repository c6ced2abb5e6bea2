// Bytes of a peer become a control message or a clear error. What is accepted keeps every limit and
// is the same after another trip over the wire.
#include <cstdint>
#include <cstdlib>

#include "transport/control/codec.h"
#include "transport/control/control.pb.h"
#include "transport/control/message_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ramferry::v1::Frame frame;
  if (!frame.ParseFromArray(data, static_cast<int>(size))) return 0;
  const auto message = ramferry::DecodeFrame(frame);
  if (!message.ok()) {
    if (message.status().message().empty()) std::abort();
    return 0;
  }
  if (!ramferry::CheckMessage(*message).ok()) std::abort();
  ramferry::v1::Frame again;
  if (!ramferry::EncodeFrame(*message, again).ok()) std::abort();
  const auto second = ramferry::DecodeFrame(again);
  if (!second.ok() || second->index() != message->index()) std::abort();
  ramferry::v1::Frame third;
  if (!ramferry::EncodeFrame(*second, third).ok()) std::abort();
  if (third.SerializeAsString() != again.SerializeAsString()) std::abort();
  return 0;
}
