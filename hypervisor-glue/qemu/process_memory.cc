#include "hypervisor-glue/qemu/process_memory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// The path of a mapping without the kernel's mark for unlinked files.
std::string_view WithoutDeletedMark(std::string_view path) {
  constexpr std::string_view kMark = " (deleted)";
  return path.ends_with(kMark) ? path.substr(0, path.size() - kMark.size()) : path;
}

// Whether the mapping is the file `path`, or the file that QEMU made in the directory `path` for
// the backend `id`: qemu_back_mem.NAME.XXXXXX, where NAME is the id or, with old machine types, the
// object's path with '_' for '/' (QEMU softmmu/physmem.c, file_ram_open). Several backends may
// share a directory: one for each NUMA node on one hugetlbfs, for instance.
bool Matches(const ProcessMapping& mapping, std::string_view path, const std::string& id) {
  const std::string_view mapped = WithoutDeletedMark(mapping.path);
  if (mapped == path) return true;
  if (!mapped.starts_with(path)) return false;
  std::string_view name = mapped.substr(path.size());
  if (name.starts_with('/')) {
    name.remove_prefix(1);
  } else if (!path.ends_with('/')) {
    return false;
  }
  constexpr std::string_view kRandom = ".XXXXXX";
  if (name.size() < kRandom.size() || name[name.size() - kRandom.size()] != '.') return false;
  name.remove_suffix(kRandom.size());
  return name == "qemu_back_mem." + id || name == "qemu_back_mem._objects_" + id;
}

bool IsQemu(pid_t pid) {
  std::error_code none;
  const std::string program =
      std::filesystem::read_symlink(fmt::format("/proc/{}/exe", pid), none).filename().string();
  return program.starts_with("qemu");
}

}  // namespace

std::vector<ProcessMapping> ParseMaps(const std::string& text) {
  std::vector<ProcessMapping> mappings;
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    ProcessMapping mapping;
    char flags[5] = {};
    unsigned major = 0;
    unsigned minor = 0;
    int path_at = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %4s %lx %x:%x %lu %n", &mapping.start, &mapping.end,
                    flags, &mapping.file_offset, &major, &minor, &mapping.inode, &path_at) < 7) {
      continue;
    }
    mapping.shared = flags[3] == 's';
    mapping.device = (static_cast<uint64_t>(major) << 32) | minor;
    if (path_at > 0 && static_cast<size_t>(path_at) < line.size())
      mapping.path = line.substr(path_at);
    mappings.push_back(std::move(mapping));
  }
  return mappings;
}

absl::StatusOr<std::vector<ProcessMapping>> ReadMaps(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/maps", pid));
  std::stringstream text;
  text << file.rdbuf();
  if (!file || text.str().empty()) {
    return absl::PermissionDeniedError(fmt::format(
        "cannot read the memory map of process {}: run as root or with CAP_SYS_PTRACE", pid));
  }
  return ParseMaps(text.str());
}

absl::StatusOr<MappedFile> FindMappedFile(pid_t pid, const std::vector<ProcessMapping>& maps,
                                          const std::string& path, const std::string& id,
                                          uint64_t size, bool writable) {
  for (const ProcessMapping& first : maps) {
    if (!first.shared || first.inode == 0 || first.file_offset != 0 || !Matches(first, path, id)) {
      continue;
    }
    // One backend may be several kernel mappings (after madvise or mbind), without a gap.
    uint64_t end = first.start;
    for (const ProcessMapping& mapping : maps) {
      if (mapping.start == end && mapping.inode == first.inode && mapping.device == first.device &&
          mapping.file_offset == end - first.start) {
        end = mapping.end;
      }
    }
    if (end - first.start < size) continue;
    const std::string link =
        fmt::format("/proc/{}/map_files/{:x}-{:x}", pid, first.start, first.end);
    UniqueFd fd(::open(link.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
    if (!fd.valid()) {
      return ErrnoStatus(errno, fmt::format("cannot open guest memory {} through {} (root or "
                                            "CAP_CHECKPOINT_RESTORE needed)",
                                            path, link));
    }
    return MappedFile{.address = first.start,
                      .path = std::string(WithoutDeletedMark(first.path)),
                      .fd = std::move(fd)};
  }
  return absl::NotFoundError(
      fmt::format("process {} does not map {} shared with {} bytes", pid, path, size));
}

pid_t QemuThatMaps(const std::string& path, pid_t except) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return 0;
  const uint64_t device =
      (static_cast<uint64_t>(major(status.st_dev)) << 32) | minor(status.st_dev);
  std::error_code error;
  for (std::filesystem::directory_iterator entry("/proc", error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    pid_t pid = 0;
    const auto [last, parsed] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (parsed != std::errc() || last != name.data() + name.size() || pid == except) continue;
    if (!IsQemu(pid)) continue;
    const auto maps = ReadMaps(pid);
    if (!maps.ok()) continue;  // ended, or not ours to look at
    const bool maps_it =
        std::any_of(maps->begin(), maps->end(), [&](const ProcessMapping& mapping) {
          return mapping.shared && mapping.inode == status.st_ino && mapping.device == device;
        });
    if (maps_it) return pid;
  }
  return 0;
}

absl::Status MemoryInUse(const std::string& path, pid_t by) {
  return absl::FailedPreconditionError(
      fmt::format("the memory file {} belongs to another guest on the destination (QEMU, process "
                  "{}): give the guest that comes a file of its own (mem-path=)",
                  path, by));
}

}  // namespace ramferry
