#include "hypervisor-glue/qemu/block_identity.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <string_view>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "base/text_file.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace ramferry {
namespace {

namespace fs = std::filesystem;

// Device-mapper targets lie on each other; what lies deeper is a loop or a mistake.
constexpr int kMostLayers = 8;

std::string Attribute(const fs::path& file) {
  const auto text = ReadTextFile(file, "a block device's attribute");
  return text.ok() ? std::string(absl::StripAsciiWhitespace(*text)) : "";
}

// Whether a WWID as the kernel writes it was given out once in the world.
bool IsUnique(std::string_view wwid) {
  // NAA 3 is "locally assigned"; 2, 5 and 6 hold an IEEE company id.
  for (const std::string_view prefix : {"naa.2", "naa.5", "naa.6", "eui.", "uuid."}) {
    if (wwid.starts_with(prefix) && wwid.size() > prefix.size()) return true;
  }
  return false;
}

// multipath calls a device by what scsi_id(8) says of its paths: a digit for the kind of designator
// (2: EUI-64, 3: NAA), then the designator.
std::string OfMultipath(std::string_view uuid) {
  uuid.remove_prefix(std::string_view("mpath-").size());
  if (uuid.starts_with('3')) {
    const std::string wwid = fmt::format("naa.{}", uuid.substr(1));
    return IsUnique(wwid) ? wwid : "";
  }
  if (uuid.starts_with('2')) return fmt::format("eui.{}", uuid.substr(1));
  return IsUnique(uuid) ? std::string(uuid) : "";  // NVMe's are as the kernel writes them
}

std::string OfDirectory(const fs::path& directory, int layers);

std::string OfDeviceMapper(const fs::path& directory, const std::string& uuid, int layers) {
  if (uuid.starts_with("mpath-")) return OfMultipath(uuid);
  std::vector<std::string> below;
  std::error_code error;
  for (const auto& slave : fs::directory_iterator(directory / "slaves", error)) {
    below.push_back(OfDirectory(slave.path(), layers + 1));
    if (below.back().empty()) return "";
  }
  if (error || uuid.empty() || below.empty()) return "";
  std::sort(below.begin(), below.end());
  return fmt::format("{} on {}", uuid, fmt::join(below, ", "));
}

std::string OfDirectory(const fs::path& directory, int layers) {
  std::error_code error;
  const fs::path here = fs::canonical(directory, error);
  if (error || layers > kMostLayers) return "";
  if (fs::exists(here / "partition", error)) {
    const std::string disk = OfDirectory(here.parent_path(), layers + 1);
    return disk.empty() ? ""
                        : fmt::format("{} at {}+{}", disk, Attribute(here / "start"),
                                      Attribute(here / "size"));
  }
  if (fs::exists(here / "dm", error)) {
    return OfDeviceMapper(here, Attribute(here / "dm" / "uuid"), layers);
  }
  for (const char* file : {"device/wwid", "wwid"}) {  // SCSI's, NVMe's
    if (std::string wwid = Attribute(here / file); IsUnique(wwid)) return wwid;
  }
  return "";
}

}  // namespace

std::string BlockDeviceIdentity(dev_t device, const fs::path& sysfs) {
  return OfDirectory(sysfs / "dev" / "block" / fmt::format("{}:{}", major(device), minor(device)),
                     0);
}

}  // namespace ramferry
