// Fast Internet checksums for the packaged lwIP.
//
// Its own are plain C and cost more than all the rest of it. It calls them by their exported names,
// so a program that defines functions of these names is called instead: lwip_standard_chksum and
// lwip_chksum_copy, in checksum.cc. Linking that file is enough. RFC 1071 is the arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ramferry::dpdk {

// The ones' complement sum of the bytes as 16-bit words in memory order, folded to 16 bits and not
// inverted; an odd last byte counts as followed by a zero.
[[nodiscard]] uint16_t InternetSum(const void* bytes, size_t length);

// Calls that lwIP made to our functions; for the test that they are the ones it calls.
[[nodiscard]] uint64_t InterposedCalls();

}  // namespace ramferry::dpdk
