// Part of the harness tcp_frames: what is said before the first frame.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ramferry {

// Aborts where a promise is broken; page_handshake.cc says which, and what the input is.
void PlayPageHandshake(const uint8_t* data, size_t size);

}  // namespace ramferry
