// Writes what Xen's toolstack restores a domain from: the three formats that are put into one
// another, each from its own description.
//
//   xl's save file       a header and the domain's configuration (tools/xl/xl.h: xl's own)
//     libxl's stream     docs/specs/libxl-migration-stream.pandoc, version 2
//       libxc's stream   docs/specs/libxc-migration-stream.pandoc, version 3
//
// There is no page of memory in it: memory lands by other ways while the reader waits for the next
// record (docs/xen.md). So it comes in two parts: Head, until the static data ends; then the
// records that the source saved of the stopped domain; then Tail.
//
// Pure functions over bytes; they know no Xen library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace ramferry {

using Bytes = std::vector<std::byte>;

// Types of records of libxc's stream that Ramferry writes.
enum class XenRecord : uint32_t {
  kEnd = 0x00,
  kTscInfo = 0x08,
  kHvmContext = 0x09,
  kHvmParams = 0x0a,
  kStaticDataEnd = 0x10,
  kCpuidPolicy = 0x11,
  kMsrPolicy = 0x12,
};

struct StreamHead {
  std::string configuration;  // libxl's, as JSON
  uint32_t xen_major = 0;     // of the Xen that the domain comes from
  uint32_t xen_minor = 0;
  std::string cpuid_policy;  // contents of the records; left out when empty
  std::string msr_policy;
};

// Everything up to and with STATIC_DATA_END.
[[nodiscard]] Bytes EncodeHead(const StreamHead& head);
// Appends one record with its padding. A body is at most 128 MiB.
void AppendRecord(XenRecord type, std::span<const std::byte> body, Bytes& to);
// The end of libxc's stream and of libxl's.
[[nodiscard]] Bytes EncodeTail();

// What a source may send of a stopped domain: each of TSC_INFO, HVM_PARAMS and HVM_CONTEXT once, in
// this order, and nothing else (pages would be written over the ones that landed).
[[nodiscard]] absl::Status CheckSavedRecords(std::span<const std::byte> records);

}  // namespace ramferry
