// What a QEMU consists of, as far as moving it matters: asked through QMP, checked once, here.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/guest_description.h"
#include "hypervisor-glue/qemu/qmp_client.h"

namespace ramferry {

// A memory backend object (-object memory-backend-...).
struct MemoryBackend {
  std::string id;
  std::string type;  // "memory-backend-file", "memory-backend-ram", ...
  uint64_t size = 0;
  bool share = false;
  bool read_only = false;
  std::string mem_path;  // of a file backend
  uint64_t file_offset = 0;
};

struct QemuDisk {
  DiskDescription description;
  bool direct = false;  // cache.direct: O_DIRECT, DMA into guest memory without a page fault
};

struct QemuInventory {
  std::string name;     // -name, or "qemu-PID"
  std::string version;  // "7.2.22"
  std::string machine;  // "pc-q35-7.2"
  std::string status;   // run state, e.g. "running", "inmigrate"
  uint32_t vcpus = 0;
  std::vector<MemoryBackend> backends;
  std::vector<QemuDisk> disks;
  std::vector<std::string> device_types;      // QOM types of all devices given by -device
  std::vector<std::string> network_backends;  // lines of `info network`
  std::vector<std::string> blockers;          // QEMU's own reasons against migration
  std::string migration_status;               // "" if none ever ran

  [[nodiscard]] bool has_direct_disk() const;
  // Its guest can hand memory to the host and take it again: pages then change under whoever has
  // pinned them. A balloon, also for free-page reporting, or memory that is unplugged.
  [[nodiscard]] bool gives_memory_back() const;
};

// Asks everything. InvalidArgument for an answer that is not what QEMU documents.
[[nodiscard]] absl::StatusOr<QemuInventory> TakeInventory(QmpClient& qmp);

}  // namespace ramferry
