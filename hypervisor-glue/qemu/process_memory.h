// Where a process has mapped a file, and that file itself: how a guest's memory is found.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace ramferry {

// One line of /proc/PID/maps (proc(5)).
struct ProcessMapping {
  uint64_t start = 0;
  uint64_t end = 0;
  bool shared = false;
  uint64_t file_offset = 0;
  uint64_t device = 0;  // as "major:minor" of the line, packed
  uint64_t inode = 0;   // 0: no file
  std::string path;     // may end in " (deleted)"
};

// Parses the text of /proc/PID/maps; lines it does not understand are left out.
[[nodiscard]] std::vector<ProcessMapping> ParseMaps(const std::string& text);
[[nodiscard]] absl::StatusOr<std::vector<ProcessMapping>> ReadMaps(pid_t pid);

// A file mapped whole: `size` bytes from its offset 0 at `address` of the process, opened by us.
struct MappedFile {
  uint64_t address = 0;
  std::string path;
  UniqueFd fd;
};

// Finds the shared mapping of `size` bytes of the file `path` (a file, or a directory in which QEMU
// made one for the backend `id`), and opens that file: the very inode that is mapped, through
// /proc/PID/map_files, also when it has no name any more. NotFound if the process maps no such
// file.
[[nodiscard]] absl::StatusOr<MappedFile> FindMappedFile(pid_t pid,
                                                        const std::vector<ProcessMapping>& maps,
                                                        const std::string& path,
                                                        const std::string& id, uint64_t size,
                                                        bool writable);

// Another QEMU than process `except` that has this file mapped; 0: none that we may look at. A
// directory, or a file that does not exist, is mapped by none.
[[nodiscard]] pid_t QemuThatMaps(const std::string& path, pid_t except = 0);
// The refusal to put a guest where another one lives.
[[nodiscard]] absl::Status MemoryInUse(const std::string& path, pid_t by);

}  // namespace ramferry
