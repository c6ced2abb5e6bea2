// The limits of every field of every control message, in one place.
//
//   RETURN_IF_ERROR(CheckMessage(message));   // "Reserve: region 2 (ram1): size 5000 is not ..."
//
// Used in both directions: what a peer sends is checked before anything else sees it, and our own
// messages are checked before they are sent, so that a mistake is named where it was made.
// The first broken rule makes an InvalidArgument that names the message, the field and the limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "transport/control_channel.h"

namespace ramferry {

inline constexpr size_t kMaxNameBytes = 255;
inline constexpr size_t kMaxPathBytes = 4096;
inline constexpr size_t kMaxReasonBytes = 4096;
inline constexpr size_t kMaxReasons = 64;
inline constexpr size_t kMaxChannels = 64;
inline constexpr size_t kMaxTransports = 16;
inline constexpr size_t kMaxDisks = 64;
inline constexpr size_t kMaxBlueprintBytes = 512 << 10;
inline constexpr uint32_t kMaxVcpus = 65536;
inline constexpr int kMaxNumaNodes = 1024;
inline constexpr size_t kTokenBytes = 32;
inline constexpr size_t kDigestBytes = 32;
// Of a whole guest: more than any machine of today can address, and far from overflow.
inline constexpr uint64_t kMaxGuestBytes = uint64_t{1} << 52;
inline constexpr uint64_t kMaxDeviceStateBytes = uint64_t{1} << 40;

[[nodiscard]] absl::Status CheckMessage(const ControlMessage& message);

// A UUID in its canonical form, in lower case: safe as a file name.
[[nodiscard]] absl::Status CheckMigrationId(std::string_view id);

// `text` cut to kMaxReasonBytes, with '?' for what is neither UTF-8 nor printable: the reason of a
// failure must arrive whatever is in it.
[[nodiscard]] std::string PresentableReason(std::string_view text);

}  // namespace ramferry
