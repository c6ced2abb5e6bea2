#include "hypervisor-glue/qemu/preflight.h"

#include <algorithm>
#include <charconv>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "hypervisor-glue/qemu/cpu_features.h"
#include "hypervisor-glue/qemu/qmp_json.h"

namespace ramferry {
namespace {

bool Contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// "7.2.22" -> 702; what matters is the release series.
int Series(const std::string& version) {
  int major = 0;
  int minor = 0;
  const char* end = version.data() + version.size();
  const auto [after, error] = std::from_chars(version.data(), end, major);
  if (error == std::errc() && after != end) std::from_chars(after + 1, end, minor);
  return major * 100 + minor;
}

void CheckMemory(const QemuInventory& inventory, std::vector<std::string>& reasons) {
  if (inventory.backends.empty()) {
    reasons.push_back(
        "its memory is not a file that Ramferry can map: start QEMU with -object "
        "memory-backend-file,id=ram,size=SIZE,share=on,mem-path=/dev/shm/NAME and -machine "
        "...,memory-backend=ram (libvirt: <memoryBacking><source type='file'/><access "
        "mode='shared'/></memoryBacking>)");
  }
  for (const MemoryBackend& backend : inventory.backends) {
    if (backend.type != "memory-backend-file") {
      reasons.push_back(fmt::format(
          "memory backend '{}' is a {}: use -object memory-backend-file,id={},size={},share=on,"
          "mem-path=/dev/shm/NAME instead (and -machine ...,memory-backend={}, if it is the main "
          "memory)",
          backend.id, backend.type, backend.id, backend.size, backend.id));
      continue;
    }
    if (!backend.share) {
      reasons.push_back(fmt::format(
          "memory backend '{}' is private to QEMU: add share=on to its -object", backend.id));
    }
    if (backend.read_only) {
      reasons.push_back(fmt::format(
          "memory backend '{}' is read-only: remove readonly=on from its -object", backend.id));
    }
    if (backend.on_shared_filesystem) {
      reasons.push_back(
          fmt::format("memory backend '{}' is a file on a network file system ({}), where the "
                      "other host may use the same: put it on one of this host, as /dev/shm",
                      backend.id, backend.mem_path));
    }
    if (backend.file_offset != 0) {
      reasons.push_back(fmt::format(
          "memory backend '{}' starts inside its file: give it a file of its own, without offset=",
          backend.id));
    }
  }
  if (inventory.backends.size() > kMaxRegions) {
    reasons.push_back(fmt::format("it has {} memory backends; Ramferry moves up to {}",
                                  inventory.backends.size(), kMaxRegions));
  }
}

void CheckDevices(const QemuInventory& inventory, std::vector<std::string>& reasons) {
  for (const std::string& type : inventory.device_types) {
    if (type.starts_with("vfio-")) {
      reasons.push_back(fmt::format(
          "device {} is a host device passed through (VFIO), which writes guest memory unseen: "
          "unplug it (device_del) for the move",
          type));
    } else if (type.starts_with("vhost-user-") || type.starts_with("vhost-vdpa-")) {
      reasons.push_back(fmt::format(
          "device {} is served by another process (virtiofsd, SPDK, ...) that writes guest memory "
          "unseen: unplug it (device_del) or use QEMU's own device",
          type));
    } else if (type.starts_with("vhost-scsi-") || type == "pvrdma") {
      reasons.push_back(fmt::format(
          "device {} lets the host's kernel pin guest memory and write to it unseen: unplug it "
          "(device_del) or use QEMU's own device",
          type));
    } else if (type == "nvdimm" || type.starts_with("virtio-pmem-")) {
      reasons.push_back(fmt::format(
          "device {} keeps its contents in a file that outlives the guest, and Ramferry clears "
          "memory files that a guest has left: unplug it (device_del) for the move",
          type));
    } else if (type.starts_with("ivshmem")) {
      reasons.push_back(fmt::format(
          "device {} shares memory with other processes: unplug it for the move", type));
    }
  }
  for (const std::string& line : inventory.network_backends) {
    if (Contains(line, "type=vhost-user") || Contains(line, "type=vhost-vdpa")) {
      reasons.push_back(fmt::format(
          "a network backend is served by another process that writes guest memory unseen ({}): "
          "use a tap or bridge backend",
          line));
    }
  }
  for (const std::string& blocker : inventory.blockers) {
    reasons.push_back("QEMU itself refuses to migrate it: " + blocker);
  }
}

// What Describe wrote; "" if another kind of source, or an older one, said nothing.
std::string CpuFeaturesIn(const GuestDescription& guest) {
  const auto record = nlohmann::json::parse(guest.blueprint, nullptr, /*allow_exceptions=*/false);
  return Field<std::string>(record, "cpu_features");
}

// Why the destination's disk is not surely the source's; empty when it is.
std::string DiskReason(const DiskDescription& source, const DiskDescription& here) {
  if (source.virtual_size != here.virtual_size) {
    return fmt::format("disk '{}' has {} bytes here but {} on the source: attach the same image",
                       source.device, here.virtual_size.value(), source.virtual_size.value());
  }
  if (source.read_only != here.read_only) {
    return fmt::format("disk '{}' is read-only on one side only", source.device);
  }
  if (source.read_only || (source.shareable && here.shareable)) return "";
  if (!source.local_identity.empty() && source.local_identity == here.local_identity) return "";
  return fmt::format(
      "disk '{}' ({} on the source, {} here) is not storage that both hosts share: put it on NFS, "
      "a cluster file system, NBD, iSCSI, RBD or a disk with a worldwide name (WWN) that both "
      "hosts reach, or copy it first (QEMU drive-mirror)",
      source.device, source.file, here.file);
}

}  // namespace

std::vector<std::string> SourceReasons(const QemuInventory& inventory) {
  std::vector<std::string> reasons;
  // QEMU calls a paused guest so once one of its migrations has ended, however. Where that was
  // completed, the guest may be running elsewhere.
  const bool came_back =
      inventory.status == "postmigrate" && inventory.migration_status != "completed";
  if (inventory.status == "postmigrate" && !came_back) {
    reasons.push_back(
        "its QEMU has completed a migration (state 'postmigrate'): the guest may run on another "
        "host. If you know that it does not, resume it (cont) first, and pause it again if need "
        "be");
  } else if (inventory.status != "running" && inventory.status != "paused" && !came_back) {
    reasons.push_back(fmt::format(
        "QEMU is in state '{}', not running or paused: wait for that to end, or resume the guest "
        "(cont)",
        inventory.status));
  }
  for (const char* busy : {"setup", "active", "cancelling", "pre-switchover", "device",
                           "postcopy-active", "postcopy-paused", "colo", "wait-unplug"}) {
    if (inventory.migration_status == busy) {
      reasons.push_back(fmt::format(
          "a migration by QEMU itself is under way (state '{}'): let it end, or migrate_cancel",
          busy));
    }
  }
  for (const std::string& job : inventory.disks.jobs) {
    reasons.push_back(fmt::format(
        "a block job is under way, of {}: let it end, or cancel it (block-job-cancel)", job));
  }
  CheckMemory(inventory, reasons);
  CheckDevices(inventory, reasons);
  return reasons;
}

std::vector<std::string> DestinationReasons(const GuestDescription& guest,
                                            const QemuInventory& destination) {
  std::vector<std::string> reasons;
  if (destination.status != "inmigrate") {
    reasons.push_back(
        fmt::format("the destination's QEMU is in state '{}': start it with -incoming defer -S",
                    destination.status));
  }
  if (guest.machine != destination.machine) {
    reasons.push_back(
        fmt::format("machine type is {} on the source but {} here: use -machine {} on both sides",
                    guest.machine, destination.machine, guest.machine));
  }
  if (Series(guest.hypervisor_version) > Series(destination.version)) {
    reasons.push_back(fmt::format(
        "QEMU {} here is older than the source's {}: move to the same or a newer version",
        destination.version, guest.hypervisor_version));
  }
  if (guest.vcpus != destination.vcpus) {
    reasons.push_back(fmt::format("{} vCPUs on the source but {} here: use -smp {}", guest.vcpus,
                                  destination.vcpus, guest.vcpus));
  }
  const std::string missing = MissingCpuFeatures(CpuFeaturesIn(guest), destination.cpu_features);
  if (!missing.empty()) {
    reasons.push_back(fmt::format(
        "the guest's processor can do what this one cannot (CPUID leaf.subleaf.register=bits: {}): "
        "use the same -cpu on both sides, a model that both hosts have",
        missing));
  }
  for (const RegionDescription& region : guest.regions) {
    const auto same =
        std::find_if(destination.backends.begin(), destination.backends.end(),
                     [&region](const MemoryBackend& backend) { return backend.id == region.name; });
    if (same == destination.backends.end()) {
      reasons.push_back(
          fmt::format("memory backend '{}' of the source does not exist here: add "
                      "-object memory-backend-file,id={},size={},share=on,mem-path=...",
                      region.name, region.name, region.size.value()));
    } else if (same->size != region.size.value()) {
      reasons.push_back(fmt::format("memory backend '{}' has {} bytes here but {} on the source",
                                    region.name, same->size, region.size.value()));
    }
  }
  if (destination.backends.size() > guest.regions.size()) {
    reasons.push_back("there are more memory backends here than on the source");
  }
  CheckMemory(destination, reasons);
  CheckDevices(destination, reasons);
  if (guest.disks.size() != destination.disks.disks.size()) {
    reasons.push_back(fmt::format("the guest has {} disks on the source but {} here",
                                  guest.disks.size(), destination.disks.disks.size()));
  }
  for (const DiskDescription& disk : guest.disks) {
    const auto same = std::find_if(
        destination.disks.disks.begin(), destination.disks.disks.end(),
        [&disk](const QemuDisk& here) { return here.description.device == disk.device; });
    if (same == destination.disks.disks.end()) {
      reasons.push_back(fmt::format("disk '{}' of the source does not exist here", disk.device));
    } else if (std::string reason = DiskReason(disk, same->description); !reason.empty()) {
      reasons.push_back(std::move(reason));
    }
  }
  return reasons;
}

GuestDescription Describe(const QemuInventory& inventory) {
  GuestDescription guest{.name = inventory.name,
                         .hypervisor = "qemu",
                         .hypervisor_version = inventory.version,
                         .machine = inventory.machine,
                         .vcpus = inventory.vcpus,
                         .running = inventory.status == "running"};
  guest.blueprint = nlohmann::json{{"cpu_features", inventory.cpu_features}}.dump();
  for (const MemoryBackend& backend : inventory.backends) {
    guest.regions.push_back(
        {.name = backend.id, .size = ByteCount(backend.size), .numa_node = backend.guest_node});
  }
  for (const QemuDisk& disk : inventory.disks.disks) guest.disks.push_back(disk.description);
  return guest;
}

std::string JoinReasons(const std::vector<std::string>& reasons) {
  return fmt::format("the guest cannot be moved:\n  - {}", fmt::join(reasons, "\n  - "));
}

}  // namespace ramferry
