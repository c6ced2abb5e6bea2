#include "hypervisor-glue/xen/blueprint.h"

#include <utility>

#include "base/status.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

using nlohmann::json;

// A gap this long ends a region: 64 MiB of guest frames.
constexpr uint64_t kGap = MiB(64).value() / kPageBytes;
// 16 TiB: what a guest of Xen can have, and what this side has address space for many times over.
constexpr uint64_t kMostFrames = uint64_t{1} << 32;

std::string ToHex(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

int Digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

absl::StatusOr<std::string> FromHex(const std::string& text) {
  std::string bytes;
  if (text.size() % 2 != 0) return absl::InvalidArgumentError("half a byte");
  for (size_t i = 0; i < text.size(); i += 2) {
    const int high = Digit(text[i]);
    const int low = Digit(text[i + 1]);
    if (high < 0 || low < 0) return absl::InvalidArgumentError("not hexadecimal");
    bytes.push_back(static_cast<char>(high << 4 | low));
  }
  return bytes;
}

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("the Xen blueprint's {}", what));
}

bool IsUuid(const std::string& text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : Digit(text[i]) < 0) return false;
  }
  return true;
}

}  // namespace

std::string FormatBlueprint(const XenBlueprint& blueprint) {
  json ram = json::array();
  for (const PageRun& run : blueprint.ram) ram.push_back({run.first, run.count});
  return json{{"uuid", blueprint.uuid},
              {"configuration", blueprint.configuration},
              {"xen", {blueprint.xen_major, blueprint.xen_minor}},
              {"cpuid", ToHex(blueprint.cpuid_policy)},
              {"msrs", ToHex(blueprint.msr_policy)},
              {"ram", std::move(ram)}}
      .dump();
}

absl::StatusOr<XenBlueprint> ParseBlueprint(const std::string& text) {
  const json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return Bad("text is no JSON object");
  for (const char* key : {"uuid", "configuration", "cpuid", "msrs"}) {
    if (!parsed.contains(key) || !parsed[key].is_string())
      return Bad(fmt::format("{} is missing", key));
  }
  for (const char* key : {"xen", "ram"}) {
    if (!parsed.contains(key) || !parsed[key].is_array())
      return Bad(fmt::format("{} is missing", key));
  }
  XenBlueprint blueprint{.uuid = parsed["uuid"].get<std::string>(),
                         .configuration = parsed["configuration"].get<std::string>()};
  if (!IsUuid(blueprint.uuid)) return Bad("uuid is none");
  const json& xen = parsed["xen"];
  if (xen.size() != 2 || !xen[0].is_number_unsigned() || !xen[1].is_number_unsigned()) {
    return Bad("version of Xen is none");
  }
  blueprint.xen_major = xen[0].get<uint32_t>();
  blueprint.xen_minor = xen[1].get<uint32_t>();
  ASSIGN_OR_RETURN(blueprint.cpuid_policy, FromHex(parsed["cpuid"].get<std::string>()));
  ASSIGN_OR_RETURN(blueprint.msr_policy, FromHex(parsed["msrs"].get<std::string>()));
  uint64_t end = 0;
  for (const json& run : parsed["ram"]) {
    if (!run.is_array() || run.size() != 2 || !run[0].is_number_unsigned() ||
        !run[1].is_number_unsigned()) {
      return Bad("ram is no list of runs");
    }
    const PageRun frames{.first = run[0].get<uint64_t>(), .count = run[1].get<uint64_t>()};
    if (frames.count == 0 || frames.first < end || frames.first > kMostFrames ||
        frames.count > kMostFrames - frames.first) {
      return Bad("ram has a run out of order or out of bounds");
    }
    end = frames.end();
    blueprint.ram.push_back(frames);
  }
  if (blueprint.ram.empty()) return Bad("ram is empty");
  return blueprint;
}

std::vector<FrameRange> GroupFrames(const PageRuns& ram) {
  std::vector<FrameRange> ranges;
  for (const PageRun& run : ram) {
    if (ranges.empty() || run.first - (ranges.back().first + ranges.back().pages) >= kGap) {
      ranges.push_back({.first = run.first});
    }
    FrameRange& range = ranges.back();
    AppendRun(range.ram, {.first = run.first - range.first, .count = run.count});
    range.pages = run.end() - range.first;
  }
  return ranges;
}

RegionDescription DescribeRange(const FrameRange& range) {
  return {.name = fmt::format("frame {:#x}", range.first),
          .size = ByteCount(range.pages * kPageBytes)};
}

}  // namespace ramferry
