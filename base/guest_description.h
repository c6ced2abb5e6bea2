// What a guest is, as far as both hosts must agree on it: plain data, sent at the reservation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/guest_memory.h"
#include "base/units.h"

namespace ramferry {

// A disk, as far as the other host must know it to refuse what would lose data.
struct DiskDescription {
  std::string device;      // the hypervisor's name of it, the same on both sides
  std::string file;        // as the hypervisor opened it
  ByteCount virtual_size;  // what the guest sees
  bool read_only = false;
  bool shareable =
      false;  // on storage that other hosts reach (network or cluster file system, URL)
  // Of a local file, "boot id:device:inode"; of a disk in a storage network, its worldwide name;
  // of several, all of them: equal means the same.
  std::string local_identity;
  friend bool operator==(const DiskDescription&, const DiskDescription&) = default;
};

// What the destination must be able to hold. Plain data; travels at the reservation.
struct GuestDescription {
  std::string name;
  std::string hypervisor;  // "qemu", "xen", "kvm", "synthetic"
  std::string hypervisor_version;
  std::string machine;  // machine type with its version, e.g. "pc-q35-7.2"
  uint32_t vcpus = 0;
  bool running = true;  // false: it was paused by its owner and must stay so
  std::vector<RegionDescription> regions;
  std::vector<DiskDescription> disks;
  // What the hypervisor's glue on the other side needs besides, in its own words: Xen's
  // hypervisor-glue/xen/blueprint.h, QEMU's hypervisor-glue/qemu/cpu_features.h.
  std::string blueprint;

  friend bool operator==(const GuestDescription&, const GuestDescription&) = default;
};

}  // namespace ramferry
