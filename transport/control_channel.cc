#include "transport/control_channel.h"

#include <iterator>

namespace ramferry {

const char* NameOf(const ControlMessage& message) {
  static constexpr const char* kNames[] = {
      "Hello",       "HelloReply", "Reserve",       "Reserved",        "Refused",  "RoundNote",
      "DeviceState", "Paused",     "ImageComplete", "Holding",         "HandOver", "Activated",
      "HandedBack",  "Abort",      "DropTransport", "TransportDropped"};
  static_assert(std::size(kNames) == std::variant_size_v<ControlMessage>);
  return kNames[message.index()];
}

}  // namespace ramferry
