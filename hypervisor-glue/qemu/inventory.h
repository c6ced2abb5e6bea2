// What a QEMU consists of, as far as moving it matters: asked through QMP, checked once, here.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/guest_description.h"
#include "base/guest_place.h"
#include "hypervisor-glue/qemu/disks.h"
#include "hypervisor-glue/qemu/qmp_client.h"

namespace ramferry {

// A memory backend object (-object memory-backend-...).
struct MemoryBackend {
  std::string id;
  std::string type;  // "memory-backend-file", "memory-backend-ram", ...
  uint64_t size = 0;
  bool share = false;
  bool read_only = false;
  std::string mem_path;               // of a file backend
  bool on_shared_filesystem = false;  // other hosts reach the file
  uint64_t file_offset = 0;
  int guest_node = -1;  // the guest's NUMA node of it; -1: none
};

// A virtual CPU.
struct QemuVcpu {
  pid_t thread = 0;
  int guest_node = -1;  // -1: the guest has no NUMA nodes
};

struct QemuInventory {
  std::string name;     // -name, or "qemu-PID"
  std::string version;  // "7.2.22"
  std::string machine;  // "pc-q35-7.2"
  std::string status;   // run state, e.g. "running", "inmigrate"
  uint32_t vcpus = 0;
  std::string cpu_features;  // of the first one: cpu_features.h
  std::vector<QemuVcpu> vcpu_threads;
  std::vector<MemoryBackend> backends;
  QemuDisks disks;
  std::vector<std::string> device_types;      // QOM types of all devices given by -device
  std::vector<std::string> network_backends;  // lines of `info network`
  std::vector<std::string> blockers;          // QEMU's own reasons against migration
  std::string migration_status;               // "" if none ever ran

  // I/O of a disk may write guest memory without a page fault: it must be drained to collect.
  [[nodiscard]] bool has_direct_disk() const;
  // Its guest can hand memory to the host and take it again: pages then change under whoever has
  // pinned them. A balloon, also for free-page reporting, or memory that is unplugged.
  [[nodiscard]] bool gives_memory_back() const;
};

// Where the threads may run now. One that has ended is left out.
[[nodiscard]] std::vector<VcpuPlace> VcpusOf(const QemuInventory& inventory);

// Fills in the guest's NUMA nodes of memory backends: from QEMU's command line (`-numa node,...`;
// no QMP command tells them) and from `query-memory-devices` for what was plugged in.
void AssignGuestNodes(const std::vector<std::string>& argv, const nlohmann::json& memory_devices,
                      std::vector<MemoryBackend>& backends);

// Asks everything. InvalidArgument for an answer that is not what QEMU documents.
[[nodiscard]] absl::StatusOr<QemuInventory> TakeInventory(QmpClient& qmp);

}  // namespace ramferry
