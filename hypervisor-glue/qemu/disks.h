// The disks of a QEMU, as far as moving its guest matters: whether the other host reaches the same
// storage, and whether they write guest memory behind the page tables.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/guest_description.h"
#include "hypervisor-glue/qemu/qmp_client.h"

namespace ramferry {

struct QemuDisk {
  DiskDescription description;
  bool direct = false;  // cache.direct: O_DIRECT, DMA into guest memory without a page fault
  friend bool operator==(const QemuDisk&, const QemuDisk&) = default;
};

struct QemuDisks {
  std::vector<QemuDisk> disks;
  // Some block node does direct I/O, be it below a disk that does not say so itself.
  bool direct_below = false;
  std::vector<std::string> jobs;  // block jobs under way: a copy, a backup
  friend bool operator==(const QemuDisks&, const QemuDisks&) = default;
};

// All disks with a medium. `direct` and `direct_below` together say whether I/O must be drained.
[[nodiscard]] absl::StatusOr<QemuDisks> TakeDisks(QmpClient& qmp);

// Whether other hosts can reach what is stored under this path: a network or cluster file system.
[[nodiscard]] bool OnSharedFilesystem(const std::string& path);

// A path as that process has it: from its root, or from its working directory.
[[nodiscard]] std::string PathAsSeenBy(pid_t pid, const std::string& path);

// Where the contents of one block node are.
struct Storage {
  bool shareable = false;  // other hosts reach the same by this name
  std::string identity;    // of a local file or disk: equal means the same; "": cannot be told
};

// `name` is a node's file name as QEMU tells it: a path as process `pid` sees it, a URL, or QEMU's
// "json:{...}". Only what is known to be reached by network is shareable: not NBD by a unix socket
// or from this very host, nor a PCI device (nvme://), nor what Ramferry does not know.
[[nodiscard]] Storage StorageOf(const std::string& name, pid_t pid);

}  // namespace ramferry
