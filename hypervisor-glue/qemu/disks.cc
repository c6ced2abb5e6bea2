#include "hypervisor-glue/qemu/disks.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "base/host_identity.h"
#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/block_identity.h"
#include "hypervisor-glue/qemu/qmp_json.h"

namespace ramferry {
namespace {

using nlohmann::json;

// A backing chain as long as this is no chain; it bounds what a wrong answer can cost.
constexpr int kMaxDepth = 256;

Storage LocalFile(const std::string& path, pid_t pid) {
  const std::string seen = PathAsSeenBy(pid, path);
  Storage storage{.shareable = OnSharedFilesystem(seen)};
  struct stat status {};
  if (::stat(seen.c_str(), &status) != 0) return storage;
  if (S_ISBLK(status.st_mode)) {
    storage.identity = BlockDeviceIdentity(status.st_rdev);
    if (storage.identity.empty()) {
      storage.identity =
          fmt::format("{}:block {}:{}", HostBootId(), major(status.st_rdev), minor(status.st_rdev));
    }
  } else {
    storage.identity = fmt::format("{}:{}:{}:{}", HostBootId(), major(status.st_dev),
                                   minor(status.st_dev), status.st_ino);
  }
  return storage;
}

// A server: on this host it is another one than the same name leads to on the other host.
Storage Server(const std::string& host, const std::string& name) {
  const bool here = host.empty() || host == "localhost" || host.starts_with("127.") ||
                    host == "::1" || host == "[::1]";
  if (here) return {.identity = fmt::format("{}:{}", HostBootId(), name)};
  return {.shareable = true};
}

Storage SocketHere(const std::string& name) {
  return Server("", name);
}

// QEMU's drivers whose data is reached by network, NBD and the curl ones apart.
bool IsNetworkDriver(std::string_view driver) {
  constexpr std::array<std::string_view, 7> kDrivers = {"rbd", "iscsi",   "iser",    "nfs",
                                                        "ssh", "gluster", "sheepdog"};
  return std::find(kDrivers.begin(), kDrivers.end(), driver) != kDrivers.end();
}

// Reads have no source and writes no effect: the same everywhere.
bool IsNowhere(std::string_view driver) {
  return driver == "null-co" || driver == "null-aio";
}

Storage StorageOfNode(const json& node, pid_t pid, int depth);

// host of "scheme://user@host:port/path"; "[::1]" keeps its brackets.
std::string HostOf(std::string_view after_scheme) {
  std::string_view host = after_scheme.substr(0, after_scheme.find('/'));
  if (const size_t at = host.rfind('@'); at != std::string_view::npos) host.remove_prefix(at + 1);
  const size_t end = host.starts_with('[') ? host.find(']') : host.find(':');
  if (host.starts_with('[')) return std::string(host.substr(0, end == host.npos ? end : end + 1));
  return std::string(host.substr(0, end));
}

Storage StorageOfUrl(const std::string& name) {
  const std::string scheme = name.substr(0, name.find(':'));
  const std::string_view rest = std::string_view(name).substr(scheme.size() + 1);
  const bool is_url = rest.starts_with("//");
  if (scheme == "nbd" && !is_url) {  // nbd:HOST:PORT, nbd:unix:PATH
    return rest.starts_with("unix:") ? SocketHere(name) : Server(HostOf(rest), name);
  }
  if (scheme == "nbd+unix" || scheme == "gluster+unix") return SocketHere(name);
  const std::string driver = scheme.substr(0, scheme.find('+'));
  if (driver == "rbd" || IsNowhere(driver)) return {.shareable = true};
  const bool by_network = IsNetworkDriver(driver) || driver == "nbd" || driver == "nbds" ||
                          driver == "http" || driver == "https" || driver == "ftp" ||
                          driver == "ftps";
  if (by_network && is_url) return Server(HostOf(rest.substr(2)), name);
  return {};
}

// All of `parts` must be reached by the other host, or all be the very same on this one.
Storage Together(const std::vector<Storage>& parts) {
  Storage whole{.shareable = !parts.empty()};
  for (const Storage& part : parts) {
    if (!part.shareable && part.identity.empty()) return {};
    whole.shareable = whole.shareable && part.shareable;
    if (part.shareable) continue;
    if (!whole.identity.empty()) whole.identity += ' ';
    whole.identity += part.identity;
  }
  return whole;
}

// A key of a block node's options, which QEMU also writes as "server.host".
std::string Option(const json& node, const char* group, const char* key) {
  const std::string nested = Field<std::string>(Field<json>(node, group), key);
  if (!nested.empty()) return nested;
  return Field<std::string>(node, fmt::format("{}.{}", group, key).c_str());
}

Storage StorageOfNode(const json& node, pid_t pid, int depth) {
  if (!node.is_object() || depth > kMaxDepth) return {};
  const std::string driver = Field<std::string>(node, "driver");
  if (driver == "file" || driver == "host_device" || driver == "host_cdrom") {
    return LocalFile(Field<std::string>(node, "filename"), pid);
  }
  if (driver == "nbd") {
    std::string host = Option(node, "server", "host");
    if (host.empty()) host = Field<std::string>(node, "host");
    return Server(host, node.dump());
  }
  if (IsNetworkDriver(driver) || IsNowhere(driver)) return {.shareable = true};
  if (std::string url = Field<std::string>(node, "url"); !url.empty()) return StorageOf(url, pid);
  // A format or a filter: what matters is below.
  std::vector<Storage> below;
  for (const json& child : node) {
    if (child.is_object() && child.contains("driver")) {
      below.push_back(StorageOfNode(child, pid, depth + 1));
    }
  }
  return Together(below);
}

// Every file name in a description of an image: its own, those of what it is based on and of what
// holds its data elsewhere (ImageInfo in QEMU's qapi/block-core.json).
void CollectNames(const json& image, int depth, std::vector<std::string>& names) {
  if (depth > kMaxDepth) return;
  if (image.is_object()) {
    for (const char* key : {"filename", "data-file"}) {
      if (std::string name = Field<std::string>(image, key); !name.empty()) {
        names.push_back(std::move(name));
      }
    }
  }
  if (!image.is_structured()) return;
  for (const json& part : image) CollectNames(part, depth + 1, names);
}

DiskDescription DescribeDisk(const json& block, const json& inserted, pid_t pid) {
  DiskDescription disk;
  disk.device = Field<std::string>(block, "device");
  if (disk.device.empty()) disk.device = Field<std::string>(block, "qdev");
  disk.file = Field<std::string>(inserted, "file");
  disk.read_only = Field<bool>(inserted, "ro");
  const json image = Field<json>(inserted, "image");
  disk.virtual_size = ByteCount(Field<uint64_t>(image, "virtual-size"));
  std::vector<std::string> names = {disk.file};
  CollectNames(image, 0, names);
  std::vector<Storage> parts;
  bool named = false;
  for (auto name = names.begin(); name != names.end(); ++name) {
    if (std::find(names.begin(), name, *name) != name) continue;  // an image names its file again
    parts.push_back(StorageOf(*name, pid));
    // The one to talk about is the one that is in the way.
    if (!parts.back().shareable && !std::exchange(named, true)) disk.file = *name;
  }
  Storage whole = Together(parts);
  disk.shareable = whole.shareable;
  // It travels in a field of 255 bytes: where a chain is longer than that, it is not compared.
  constexpr size_t kMaxIdentity = 255;
  if (whole.identity.size() <= kMaxIdentity) disk.local_identity = std::move(whole.identity);
  return disk;
}

}  // namespace

bool OnSharedFilesystem(const std::string& path) {
  constexpr std::array<long, 12> kShared = {NFS_SUPER_MAGIC,
                                            CEPH_SUPER_MAGIC,
                                            SMB_SUPER_MAGIC,
                                            OCFS2_SUPER_MAGIC,
                                            V9FS_MAGIC,
                                            0x01161970 /* GFS2 */,
                                            0x0BD00BD0 /* Lustre */,
                                            0x47504653 /* GPFS */,
                                            0x19830326 /* BeeGFS */,
                                            FUSE_SUPER_MAGIC /* GlusterFS and others */,
                                            0xFF534D42 /* CIFS */,
                                            0xFE534D42 /* SMB2 */};
  struct statfs filesystem {};
  if (::statfs(path.c_str(), &filesystem) != 0) return false;
  return std::find(kShared.begin(), kShared.end(), static_cast<long>(filesystem.f_type)) !=
         kShared.end();
}

std::string PathAsSeenBy(pid_t pid, const std::string& path) {
  return path.starts_with('/') ? fmt::format("/proc/{}/root{}", pid, path)
                               : fmt::format("/proc/{}/cwd/{}", pid, path);
}

Storage StorageOf(const std::string& name, pid_t pid) {
  if (name.empty()) return {};
  constexpr std::string_view kJson = "json:";
  if (name.starts_with(kJson)) {
    const json node = json::parse(name.substr(kJson.size()), nullptr, /*allow_exceptions=*/false);
    return StorageOfNode(node, pid, 0);
  }
  for (const std::string_view prefix : {"file:", "host_device:", "host_cdrom:"}) {
    if (name.starts_with(prefix)) return LocalFile(name.substr(prefix.size()), pid);
  }
  const size_t colon = name.find(':');
  if (name.starts_with('/') || colon == std::string::npos || name.find('/') < colon) {
    return LocalFile(name, pid);
  }
  return StorageOfUrl(name);
}

absl::StatusOr<QemuDisks> TakeDisks(QmpClient& qmp) {
  QemuDisks found;
  ASSIGN_OR_RETURN(const json blocks, qmp.Execute("query-block"));
  for (const json& block : blocks) {
    const json inserted = Field<json>(block, "inserted");
    if (!inserted.is_object()) continue;  // an empty drive
    found.disks.push_back({.description = DescribeDisk(block, inserted, qmp.peer_pid()),
                           .direct = Field<bool>(Field<json>(inserted, "cache"), "direct")});
  }
  // A disk's own word is about its uppermost node alone. With -blockdev the one that opens the file
  // may be direct below one that is not, and reads go straight into guest memory all the same.
  ASSIGN_OR_RETURN(const json nodes, qmp.Execute("query-named-block-nodes", {{"flat", true}}));
  for (const json& node : nodes) {
    const std::string driver = Field<std::string>(node, "drv");
    found.direct_below = found.direct_below || Field<bool>(Field<json>(node, "cache"), "direct") ||
                         driver.starts_with("nvme") || driver.starts_with("virtio-blk-");
  }
  const auto jobs = qmp.Execute("query-block-jobs");
  for (const json& job : jobs.ok() ? *jobs : json::array()) {
    found.jobs.push_back(
        fmt::format("{} ({})", Field<std::string>(job, "device"), Field<std::string>(job, "type")));
  }
  return found;
}

}  // namespace ramferry
