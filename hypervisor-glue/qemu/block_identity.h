// Which disk a block device is, in words that are the same on every host that reaches it: so that a
// disk in a storage network (SAN) is told from one that only this host has.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>

namespace ramferry {

// Of a SCSI or NVMe disk its worldwide name (WWID), of a multipath device that of its paths, of a
// partition also where it lies, of a logical volume (LVM) or another device-mapper target its UUID
// and what it lies on. "": nothing tells it from the disks of other hosts; also for names that a
// vendor, an administrator or an emulator chooses freely (T10 vendor id, NAA 3, NVMe serial
// number). `sysfs` is for tests. Thread-safe. Source: the kernel's
// Documentation/ABI/stable/sysfs-block, testing/sysfs-block-dm; SPC-4, 7.8.6 (designators).
[[nodiscard]] std::string BlockDeviceIdentity(dev_t device,
                                              const std::filesystem::path& sysfs = "/sys");

}  // namespace ramferry
