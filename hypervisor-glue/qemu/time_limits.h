// How long Ramferry waits for a QEMU, where more than one file does.
#pragma once

#include <chrono>

namespace ramferry {

// To answer on its QMP socket.
inline constexpr std::chrono::seconds kConnectTime{5};
// To exit after it was told to.
inline constexpr std::chrono::seconds kQuitTime{10};

}  // namespace ramferry
