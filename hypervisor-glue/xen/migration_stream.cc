#include "hypervisor-glue/xen/migration_stream.h"

#include <array>
#include <string_view>

#include "base/status.h"
#include "base/units.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

constexpr size_t kAlignment = 8;
constexpr uint32_t kLongestRecord = 128 << 20;

// xl's save file.
constexpr std::string_view kXlMagic("Xen saved domain, xl format\n \0 \r", 32);
constexpr uint32_t kXlByteOrder = 0x01020304;
constexpr uint32_t kXlJsonConfiguration = 1 << 0;
constexpr uint32_t kXlStreamVersion2 = 1 << 1;

// libxl's stream.
constexpr uint64_t kLibxlIdent = 0x4c6962786c466d74;  // "LibxlFmt"
constexpr uint32_t kLibxlVersion = 2;
constexpr uint32_t kLibxlEnd = 0;
constexpr uint32_t kLibxlLibxcContext = 1;

// libxc's stream.
constexpr uint64_t kImageMarker = ~uint64_t{0};
constexpr uint32_t kImageIdent = 0x58454e46;  // "XENF"
constexpr uint32_t kImageVersion = 3;
constexpr uint32_t kX86Hvm = 2;  // PVH, too

template <class Integer>
void AppendLittle(Integer value, Bytes& to) {
  for (size_t i = 0; i < sizeof value; ++i) to.push_back(std::byte(value >> (8 * i) & 0xff));
}

template <class Integer>
void AppendBig(Integer value, Bytes& to) {
  for (size_t i = sizeof value; i-- > 0;) to.push_back(std::byte(value >> (8 * i) & 0xff));
}

void AppendText(std::string_view text, Bytes& to) {
  const auto bytes = std::as_bytes(std::span(text));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

void AppendTextRecord(XenRecord type, const std::string& body, Bytes& to) {
  if (!body.empty()) AppendRecord(type, std::as_bytes(std::span(body)), to);
}

uint32_t LittleAt(std::span<const std::byte> bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < sizeof value; ++i)
    value |= std::to_integer<uint32_t>(bytes[at + i]) << 8 * i;
  return value;
}

}  // namespace

void AppendRecord(XenRecord type, std::span<const std::byte> body, Bytes& to) {
  AppendLittle(static_cast<uint32_t>(type), to);
  AppendLittle(static_cast<uint32_t>(body.size()), to);
  to.insert(to.end(), body.begin(), body.end());
  to.resize(to.size() + (kAlignment - body.size() % kAlignment) % kAlignment);
}

Bytes EncodeHead(const StreamHead& head) {
  Bytes out;
  AppendText(kXlMagic, out);
  AppendLittle(kXlByteOrder, out);
  AppendLittle(kXlJsonConfiguration | kXlStreamVersion2, out);
  AppendLittle(uint32_t{0}, out);                                            // optional flags
  const auto length = static_cast<uint32_t>(head.configuration.size() + 1);  // and a NUL
  AppendLittle(static_cast<uint32_t>(sizeof length + length), out);
  AppendLittle(length, out);
  AppendText(head.configuration, out);
  out.push_back(std::byte{0});

  AppendBig(kLibxlIdent, out);
  AppendBig(kLibxlVersion, out);
  AppendBig(uint32_t{0}, out);  // options: little-endian
  AppendLittle(kLibxlLibxcContext, out);
  AppendLittle(uint32_t{0}, out);

  AppendBig(kImageMarker, out);
  AppendBig(kImageIdent, out);
  AppendBig(kImageVersion, out);
  AppendBig(uint16_t{0}, out);  // options: little-endian
  AppendBig(uint16_t{0}, out);
  AppendBig(uint32_t{0}, out);
  AppendLittle(kX86Hvm, out);
  AppendLittle(static_cast<uint16_t>(kPageShift), out);
  AppendLittle(uint16_t{0}, out);
  AppendLittle(head.xen_major, out);
  AppendLittle(head.xen_minor, out);
  AppendTextRecord(XenRecord::kCpuidPolicy, head.cpuid_policy, out);
  AppendTextRecord(XenRecord::kMsrPolicy, head.msr_policy, out);
  AppendRecord(XenRecord::kStaticDataEnd, {}, out);
  return out;
}

Bytes EncodeTail() {
  Bytes out;
  AppendRecord(XenRecord::kEnd, {}, out);
  AppendLittle(kLibxlEnd, out);
  AppendLittle(uint32_t{0}, out);
  return out;
}

absl::Status CheckSavedRecords(std::span<const std::byte> records) {
  const auto bad = [](std::string_view what) {
    return absl::InvalidArgumentError(fmt::format("the domain's saved state {}", what));
  };
  for (const XenRecord due : {XenRecord::kTscInfo, XenRecord::kHvmParams, XenRecord::kHvmContext}) {
    if (records.size() < kAlignment) return bad("ends too early");
    const uint32_t type = LittleAt(records, 0);
    const uint32_t length = LittleAt(records, 4);
    if (type != static_cast<uint32_t>(due)) {
      return bad(
          fmt::format("has record {:#x} where {:#x} is due", type, static_cast<uint32_t>(due)));
    }
    if (length == 0 || length > kLongestRecord) return bad("has a record of a wrong length");
    const size_t whole = kAlignment + (length + kAlignment - 1) / kAlignment * kAlignment;
    if (whole > records.size()) return bad("ends in the middle of a record");
    records = records.subspan(whole);
  }
  return records.empty() ? absl::OkStatus() : bad("goes on where it should end");
}

}  // namespace ramferry
