// Numbers that both ends of a control connection must agree on.
#pragma once

#include <chrono>

namespace ramferry {

// A ping every two seconds that must be answered within five: a peer that is gone without a word is
// noticed within seven seconds, and a busy one is not given up too early.
inline constexpr int kKeepaliveMilliseconds = 2'000;
inline constexpr int kKeepaliveTimeoutMilliseconds = 5'000;
// The server takes pings as often as this; a client that pings more often is cut off.
inline constexpr int kLeastPingIntervalMilliseconds = 500;

// For the peer to take what was sent before a close.
inline constexpr std::chrono::seconds kLinger{5};

// The server's sign that it has taken a migration, in its initial metadata.
inline constexpr char kAcceptedKey[] = "ramferry-accepted";

}  // namespace ramferry
