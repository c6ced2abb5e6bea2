#include "hypervisor-glue/qemu/inventory.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/numa_memory.h"
#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/cpu_features.h"
#include "hypervisor-glue/qemu/qmp_json.h"

namespace ramferry {
namespace {

using nlohmann::json;

absl::StatusOr<json> QomGet(QmpClient& qmp, const std::string& path, const char* property) {
  return qmp.Execute("qom-get", {{"path", path}, {"property", property}});
}

// `child<memory-backend-file>` -> `memory-backend-file`; "" for anything that is no child.
std::string ChildType(const std::string& type) {
  constexpr std::string_view kPrefix = "child<";
  if (!type.starts_with(kPrefix) || !type.ends_with('>')) return "";
  return type.substr(kPrefix.size(), type.size() - kPrefix.size() - 1);
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Children(QmpClient& qmp,
                                                                          const std::string& path) {
  ASSIGN_OR_RETURN(const json list, qmp.Execute("qom-list", {{"path", path}}));
  std::vector<std::pair<std::string, std::string>> children;
  for (const json& entry : list) {
    const std::string type = ChildType(Field<std::string>(entry, "type"));
    if (!type.empty()) children.emplace_back(Field<std::string>(entry, "name"), type);
  }
  return children;
}

absl::Status TakeBackends(QmpClient& qmp, QemuInventory& inventory) {
  ASSIGN_OR_RETURN(const auto objects, Children(qmp, "/objects"));
  for (const auto& [id, type] : objects) {
    if (!type.starts_with("memory-backend-")) continue;
    const std::string path = "/objects/" + id;
    MemoryBackend backend{.id = id, .type = type};
    ASSIGN_OR_RETURN(const json size, QomGet(qmp, path, "size"));
    ASSIGN_OR_RETURN(const json share, QomGet(qmp, path, "share"));
    if (!size.is_number_unsigned() || !share.is_boolean()) {
      return absl::InvalidArgumentError("QEMU's memory backend " + id + " has no size or no share");
    }
    backend.size = size.get<uint64_t>();
    backend.share = share.get<bool>();
    if (type == "memory-backend-file") {
      ASSIGN_OR_RETURN(const json mem_path, QomGet(qmp, path, "mem-path"));
      if (mem_path.is_string()) backend.mem_path = mem_path.get<std::string>();
      backend.on_shared_filesystem =
          OnSharedFilesystem(PathAsSeenBy(qmp.peer_pid(), backend.mem_path));
      const auto read_only = QomGet(qmp, path, "readonly");
      backend.read_only = read_only.ok() && read_only->is_boolean() && read_only->get<bool>();
      // Only QEMU 8.1 and newer know an offset.
      const auto offset = QomGet(qmp, path, "offset");
      if (offset.ok() && offset->is_number_unsigned())
        backend.file_offset = offset->get<uint64_t>();
    }
    inventory.backends.push_back(std::move(backend));
  }
  std::sort(inventory.backends.begin(), inventory.backends.end(),
            [](const MemoryBackend& a, const MemoryBackend& b) { return a.id < b.id; });
  return absl::OkStatus();
}

absl::Status TakeDevices(QmpClient& qmp, QemuInventory& inventory) {
  for (const char* path : {"/machine/peripheral", "/machine/peripheral-anon"}) {
    ASSIGN_OR_RETURN(const auto children, Children(qmp, path));
    for (const auto& [name, type] : children) inventory.device_types.push_back(type);
  }
  // QMP has no query for network backends; the human monitor does.
  const auto text = qmp.Execute("human-monitor-command", {{"command-line", "info network"}});
  if (text.ok() && text->is_string()) {
    std::istringstream lines(text->get<std::string>());
    std::string line;
    while (std::getline(lines, line)) inventory.network_backends.push_back(line);
  }
  return absl::OkStatus();
}

std::vector<std::string> CommandLineOf(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/cmdline", pid), std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

// The value of `key` in "node,nodeid=0,cpus=0-1,memdev=ram0"; "" if it is not there.
std::string OptionValue(const std::string& text, const std::string& key) {
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    if (part.starts_with(key + '=')) return part.substr(key.size() + 1);
  }
  return "";
}

}  // namespace

std::vector<VcpuPlace> VcpusOf(const QemuInventory& inventory) {
  std::vector<VcpuPlace> places;
  for (const QemuVcpu& vcpu : inventory.vcpu_threads) {
    CpuSet cpus = vcpu.thread > 0 ? AffinityOf(vcpu.thread) : CpuSet();
    if (!cpus.empty()) places.push_back({.guest_node = vcpu.guest_node, .cpus = std::move(cpus)});
  }
  return places;
}

void AssignGuestNodes(const std::vector<std::string>& argv, const json& memory_devices,
                      std::vector<MemoryBackend>& backends) {
  const auto assign = [&backends](const std::string& id, int node) {
    for (MemoryBackend& backend : backends) {
      if (backend.id == id && node >= 0 && node < kMaxNodes) backend.guest_node = node;
    }
  };
  int next = 0;  // the number of a node that is given none
  for (size_t i = 0; i + 1 < argv.size(); ++i) {
    const std::string& words = argv[i + 1];
    if ((argv[i] != "-numa" && argv[i] != "--numa") ||
        (!words.starts_with("node,") && words != "node")) {
      continue;
    }
    const std::string number = OptionValue(words, "nodeid");
    const int node = number.empty() ? next : std::atoi(number.c_str());
    ++next;
    assign(OptionValue(words, "memdev"), node);
  }
  for (const json& device : memory_devices) {
    const json data = Field<json>(device, "data");
    const std::string path = Field<std::string>(data, "memdev");  // "/objects/dimm0"
    assign(path.substr(path.rfind('/') + 1), Field<int>(data, "node", -1));
  }
}

bool QemuInventory::has_direct_disk() const {
  // scsi-block hands the guest's requests to the kernel (SG_IO), which pins guest memory for them.
  return disks.direct_below ||
         std::any_of(disks.disks.begin(), disks.disks.end(),
                     [](const QemuDisk& disk) { return disk.direct; }) ||
         std::find(device_types.begin(), device_types.end(), "scsi-block") != device_types.end();
}

bool QemuInventory::gives_memory_back() const {
  // The first two have a suffix for their bus: virtio-balloon-pci, virtio-mem-pci.
  return std::any_of(device_types.begin(), device_types.end(), [](const std::string& type) {
    return type.starts_with("virtio-balloon-") || type.starts_with("virtio-mem-") ||
           type == "hv-balloon";
  });
}

absl::StatusOr<QemuInventory> TakeInventory(QmpClient& qmp) {
  QemuInventory inventory;
  ASSIGN_OR_RETURN(const json version, qmp.Execute("query-version"));
  const json number = Field<json>(version, "qemu");
  inventory.version = fmt::format("{}.{}.{}", Field<int>(number, "major"),
                                  Field<int>(number, "minor"), Field<int>(number, "micro"));
  ASSIGN_OR_RETURN(const json name, qmp.Execute("query-name"));
  inventory.name = Field<std::string>(name, "name", fmt::format("qemu-{}", qmp.peer_pid()));
  ASSIGN_OR_RETURN(const json status, qmp.Execute("query-status"));
  inventory.status = Field<std::string>(status, "status");
  ASSIGN_OR_RETURN(const json machine, QomGet(qmp, "/machine", "type"));
  inventory.machine = machine.is_string() ? machine.get<std::string>() : "";
  constexpr std::string_view kMachineSuffix = "-machine";
  if (inventory.machine.ends_with(kMachineSuffix)) {
    inventory.machine.resize(inventory.machine.size() - kMachineSuffix.size());
  }
  ASSIGN_OR_RETURN(const json cpus, qmp.Execute("query-cpus-fast"));
  inventory.vcpus = static_cast<uint32_t>(cpus.size());
  if (cpus.is_array() && !cpus.empty()) {
    const auto words = QomGet(qmp, Field<std::string>(cpus[0], "qom-path"), "feature-words");
    if (words.ok()) inventory.cpu_features = CpuFeatures(*words);
  }
  RETURN_IF_ERROR(TakeBackends(qmp, inventory));
  // A machine without memory devices answers with an error, or with an empty list.
  const auto plugged = qmp.Execute("query-memory-devices");
  const std::vector<std::string> argv = CommandLineOf(qmp.peer_pid());
  AssignGuestNodes(argv, plugged.ok() ? *plugged : json::array(), inventory.backends);
  const bool has_nodes =
      std::any_of(inventory.backends.begin(), inventory.backends.end(),
                  [](const MemoryBackend& backend) { return backend.guest_node >= 0; });
  for (const json& cpu : cpus) {
    // A machine without -numa calls all CPUs those of node 0.
    const json properties = Field<json>(cpu, "props");
    inventory.vcpu_threads.push_back(
        {.thread = Field<pid_t>(cpu, "thread-id"),
         .guest_node = has_nodes ? Field<int>(properties, "node-id", -1) : -1});
  }
  ASSIGN_OR_RETURN(inventory.disks, TakeDisks(qmp));
  RETURN_IF_ERROR(TakeDevices(qmp, inventory));
  ASSIGN_OR_RETURN(const json migration, qmp.Execute("query-migrate"));
  inventory.migration_status = Field<std::string>(migration, "status");
  for (const json& reason : Field<json>(migration, "blocked-reasons", json::array())) {
    if (reason.is_string()) inventory.blockers.push_back(reason.get<std::string>());
  }
  return inventory;
}

}  // namespace ramferry
