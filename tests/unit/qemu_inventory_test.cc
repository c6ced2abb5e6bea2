// Whatever a monitor answers, asking it what it consists of ends with an inventory or a clear
// error.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <chrono>

#include "fake_qmp_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/qemu/cpu_features.h"
#include "hypervisor-glue/qemu/inventory.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::ElementsAre;

// A QEMU with one memory backend, two drives (one empty), two devices.
class Inventory : public testing::Test {
 protected:
  Inventory() { Prepare(); }
  void Prepare() {
    qemu_.Return("query-version", {{"qemu", {{"major", 7}, {"minor", 2}, {"micro", 22}}}});
    qemu_.Return("query-name", {{"name", "web1"}});
    qemu_.Return("query-status", {{"status", "running"}, {"running", true}});
    qemu_.Return("query-cpus-fast",
                 {{{"cpu-index", 0}, {"qom-path", "/machine/cpu0"}}, {{"cpu-index", 1}}});
    qemu_.Return("query-migrate",
                 {{"status", "completed"}, {"blocked-reasons", {"a blocker", 7, "another"}}});
    qemu_.Return("query-block", {{{"device", "disk0"},
                                  {"inserted",
                                   {{"file", "nbd://store/web1"},
                                    {"ro", false},
                                    {"cache", {{"direct", true}}},
                                    {"image", {{"virtual-size", 1 << 20}}}}}},
                                 {{"device", "cdrom"}}});
    qemu_.Return("query-named-block-nodes", {{{"drv", "nbd"}, {"cache", {{"direct", false}}}}});
    qemu_.Return("query-block-jobs", {{{"device", "disk0"}, {"type", "mirror"}}});
    qemu_.Return("human-monitor-command", "net0: type=tap\r\n \\ nic0: type=nic\r\n");
    qemu_.Handle("qom-list", [](const json& arguments) {
      const std::string path = arguments.value("path", "");
      json list = json::array({{{"name", "type"}, {"type", "string"}}});
      if (path == "/objects") {
        list.push_back({{"name", "ram"}, {"type", "child<memory-backend-file>"}});
        list.push_back({{"name", "io0"}, {"type", "child<iothread>"}});
      } else if (path == "/machine/peripheral") {
        list.push_back({{"name", "nic0"}, {"type", "child<virtio-net-pci>"}});
      } else {
        list.push_back({{"name", "device[0]"}, {"type", "child<pvpanic>"}});
      }
      return json{{"return", list}}.dump() + "\n";
    });
    qemu_.Handle("qom-get", [](const json& arguments) {
      static const json kValues = {
          {"type", "pc-q35-7.2-machine"},
          {"size", 64 << 20},
          {"share", true},
          {"mem-path", "/dev/shm/web1"},
          {"readonly", false},
          {"feature-words",
           {{{"cpuid-register", "EBX"},
             {"cpuid-input-eax", 7},
             {"cpuid-input-ecx", 0},
             {"features", 0x22}},
            {{"cpuid-register", "EAX"}, {"cpuid-input-eax", 6}, {"features", 0}},
            {{"cpuid-register", "EDX"}, {"cpuid-input-eax", 1}, {"features", 0xff}}}}};
      const std::string property = arguments.value("property", "");
      if (!kValues.contains(property)) {
        return std::string(R"({"error": {"class": "GenericError", "desc": "no such property"}})") +
               "\n";
      }
      return json{{"return", kValues[property]}}.dump() + "\n";
    });
  }
  absl::StatusOr<QemuInventory> Take() {
    auto client = QmpClient::Connect(qemu_.path(), In(20s));
    if (!client.ok()) return client.status();
    return TakeInventory(**client);
  }
  FakeQmpServer qemu_;
};

TEST_F(Inventory, holds_what_qemu_says) {
  const auto inventory = Take();
  ASSERT_TRUE(inventory.ok()) << inventory.status();
  EXPECT_EQ(inventory->name, "web1");
  EXPECT_EQ(inventory->version, "7.2.22");
  EXPECT_EQ(inventory->machine, "pc-q35-7.2");
  EXPECT_EQ(inventory->status, "running");
  EXPECT_EQ(inventory->vcpus, 2u);
  EXPECT_EQ(inventory->cpu_features, "1.0.EDX=ff;7.0.EBX=22");
  ASSERT_EQ(inventory->backends.size(), 1u);
  EXPECT_EQ(inventory->backends[0].id, "ram");
  EXPECT_EQ(inventory->backends[0].type, "memory-backend-file");
  EXPECT_EQ(inventory->backends[0].size, 64u << 20);
  EXPECT_TRUE(inventory->backends[0].share);
  EXPECT_FALSE(inventory->backends[0].read_only);
  EXPECT_EQ(inventory->backends[0].mem_path, "/dev/shm/web1");
  EXPECT_EQ(inventory->backends[0].file_offset, 0u);
  ASSERT_EQ(inventory->disks.disks.size(), 1u);  // an empty drive is no disk
  EXPECT_EQ(inventory->disks.disks[0].description.device, "disk0");
  EXPECT_EQ(inventory->disks.disks[0].description.virtual_size, MiB(1));
  EXPECT_TRUE(inventory->disks.disks[0].description.shareable);  // by URL
  EXPECT_TRUE(inventory->has_direct_disk());
  EXPECT_THAT(inventory->device_types, ElementsAre("virtio-net-pci", "pvpanic"));
  EXPECT_EQ(inventory->network_backends.size(), 2u);
  EXPECT_THAT(inventory->blockers, ElementsAre("a blocker", "another"));
  EXPECT_EQ(inventory->migration_status, "completed");
  EXPECT_THAT(inventory->disks.jobs, ElementsAre("disk0 (mirror)"));
}

TEST_F(Inventory, guest_without_a_name_is_called_after_its_process) {
  qemu_.Return("query-name", json::object());
  const auto inventory = Take();
  ASSERT_TRUE(inventory.ok());
  EXPECT_EQ(inventory->name, "qemu-" + std::to_string(::getpid()));
}

TEST_F(Inventory, local_disk_is_known_by_its_inode) {
  TestDirectory directory;
  const std::string file = directory.File("disk");
  ASSERT_EQ(::close(::creat(file.c_str(), 0600)), 0);
  const auto disk = [this](const std::string& path) {
    qemu_.Return("query-block", {{{"device", ""},
                                  {"qdev", "/machine/disk"},
                                  {"inserted", {{"file", path}, {"ro", true}}}}});
    const auto inventory = Take();
    EXPECT_TRUE(inventory.ok());
    return inventory->disks.disks.at(0).description;
  };
  EXPECT_EQ(disk(file).device, "/machine/disk");
  EXPECT_TRUE(disk(file).read_only);
  EXPECT_FALSE(disk(file).shareable);
  EXPECT_FALSE(disk(file).local_identity.empty());
  const std::string other = directory.File("other");
  ASSERT_EQ(::close(::creat(other.c_str(), 0600)), 0);
  EXPECT_NE(disk(file).local_identity, disk(other).local_identity);
  EXPECT_TRUE(disk(directory.File("gone")).local_identity.empty());
  EXPECT_TRUE(disk("json:{\"driver\": \"rbd\"}").shareable);
}

// With -blockdev a disk may say that it is cached, and the node below that opens its file is not.
TEST_F(Inventory, direct_io_below_a_disk_is_found) {
  const auto direct = [this](const json& nodes) {
    qemu_.Return("query-block", {{{"device", "disk0"},
                                  {"inserted",
                                   {{"file", "nbd://store/web1"},
                                    {"cache", {{"direct", false}}},
                                    {"image", {{"virtual-size", 1 << 20}}}}}}});
    qemu_.Return("query-named-block-nodes", nodes);
    const auto inventory = Take();
    EXPECT_TRUE(inventory.ok()) << inventory.status();
    return inventory->has_direct_disk();
  };
  const json cached = {{"drv", "qcow2"}, {"cache", {{"direct", false}}}};
  EXPECT_FALSE(direct({cached}));
  EXPECT_TRUE(direct({cached, {{"drv", "file"}, {"cache", {{"direct", true}}}}}));
  EXPECT_TRUE(direct({cached, {{"drv", "nvme"}}})) << "the device writes guest memory by itself";
}

TEST_F(Inventory, disk_handed_through_to_the_guest_is_direct) {
  QemuInventory inventory;
  inventory.device_types = {"scsi-hd"};
  EXPECT_FALSE(inventory.has_direct_disk());
  inventory.device_types.emplace_back("scsi-block");
  EXPECT_TRUE(inventory.has_direct_disk());
}

TEST(CpuFeatures, that_are_missing_are_named) {
  EXPECT_EQ(MissingCpuFeatures("1.0.EDX=ff;7.0.EBX=22", "7.0.EBX=2;1.0.EDX=f"),
            "1.0.EDX=f0;7.0.EBX=20");
  EXPECT_EQ(MissingCpuFeatures("7.0.EBX=22", "1.0.EDX=ff"), "7.0.EBX=22");
  EXPECT_EQ(MissingCpuFeatures("7.0.EBX=22", "7.0.EBX=ffffffff"), "");
  EXPECT_EQ(MissingCpuFeatures("", "7.0.EBX=1"), "");
  EXPECT_EQ(MissingCpuFeatures("7.0.EBX=22", ""), "");
  for (const char* unreadable : {"7.0.EBX", "7.0.EBX=", "7.0.EBX=xyz", "=-1"}) {
    EXPECT_EQ(MissingCpuFeatures(unreadable, "7.0.EBX=ffffffff"), unreadable);
  }
}

TEST(Storage, is_shared_only_where_the_other_host_surely_reaches_it) {
  for (
      const char* name :
      {"nbd://store/web1", "nbd:store:10809:exportname=web1", "nbd+tcp://store:10809/web1",
       "rbd:pool/web1:id=x", "iscsi://user%pw@store:3260/iqn/0", "nfs://store/web1",
       "ssh://root@store/web1.img", "https://store/web1.iso", "gluster://store/volume/web1",
       "null-co://", R"(json:{"driver": "rbd", "pool": "p", "image": "web1"})",
       R"(json:{"driver": "nbd", "server": {"type": "inet", "host": "store", "port": "1"}})",
       R"(json:{"driver": "nbd", "server.type": "inet", "server.host": "store"})",
       R"(json:{"driver": "raw", "file": {"driver": "https", "url": "https://store/web1"}})",
       R"(json:{"driver": "throttle", "file": {"driver": "qcow2", "file": {"driver": "iscsi"}}})"}) {
    EXPECT_TRUE(StorageOf(name, ::getpid()).shareable) << name;
  }
  for (const char* name :
       {"",
        "/srv/web1.img",
        "web1.img",
        "./odd:name",
        "file:/srv/web1.img",
        "host_device:/dev/sdb",
        "nbd:unix:/run/nbd.sock",
        "nbd+unix:///web1?socket=/run/nbd.sock",
        "nbd://localhost/web1",
        "nbd://127.0.0.1:10809/web1",
        "nbd://[::1]/web1",
        "nvme://0000:01:00.0/1",
        "fat:rw:/srv",
        "blkdebug::/srv/web1.img",
        "unheard-of://store",
        "json:",
        "json:7",
        "json:{}",
        R"(json:{"driver": "qcow2", "file": "a-node"})",
        R"(json:{"driver": "file", "filename": "/srv/web1.img"})",
        R"(json:{"driver": "nbd", "server": {"type": "unix", "path": "/run/nbd.sock"}})",
        R"(json:{"driver": "qcow2", "file": {"driver": "file", "filename": "/srv/web1.img"}})",
        R"(json:{"driver": "qcow2", "file": {"driver": "rbd"},
                 "backing": {"driver": "file", "filename": "/srv/base.img"}})"}) {
    EXPECT_FALSE(StorageOf(name, ::getpid()).shareable) << name;
  }
}

TEST(Storage, disk_of_this_host_is_itself_by_whatever_name) {
  TestDirectory directory;
  const auto node = [&directory](const char* name, unsigned int minor_number) {
    const std::string path = directory.File(name);
    // Nothing opens it: there need be no such disk.
    if (::mknod(path.c_str(), S_IFBLK | 0600, makedev(240, minor_number)) != 0)
      return std::string();
    return StorageOf("host_device:" + path, ::getpid()).identity;
  };
  const std::string one = node("one", 1);
  if (one.empty()) GTEST_SKIP() << "making a device node takes CAP_MKNOD";
  EXPECT_EQ(node("the-same", 1), one);
  EXPECT_NE(node("another", 2), one);
}

TEST_F(Inventory, disk_is_shared_only_with_all_that_it_is_based_on) {
  TestDirectory directory;
  const std::string base = directory.File("base.img");
  ASSERT_EQ(::close(::creat(base.c_str(), 0600)), 0);
  const auto disk = [this](const json& image) {
    qemu_.Return("query-block", {{{"device", "disk0"},
                                  {"inserted", {{"file", "nbd://store/web1"}, {"image", image}}}}});
    const auto inventory = Take();
    EXPECT_TRUE(inventory.ok()) << inventory.status();
    return inventory->disks.disks.at(0).description;
  };
  EXPECT_TRUE(disk({{"filename", "nbd://store/web1"}}).shareable);
  EXPECT_TRUE(
      disk({{"filename", "nbd://store/web1"}, {"backing-image", {{"filename", "rbd:pool/base"}}}})
          .shareable);
  const DiskDescription based =
      disk({{"filename", "nbd://store/web1"},
            {"backing-image",
             {{"filename", "rbd:pool/middle"}, {"backing-image", {{"filename", base}}}}}});
  EXPECT_FALSE(based.shareable);
  EXPECT_EQ(based.file, base) << "the one that is in the way";
  EXPECT_FALSE(based.local_identity.empty()) << "on one host it is the same all the same";
  const DiskDescription elsewhere =
      disk({{"filename", "nbd://store/web1"},
            {"format-specific", {{"data", {{"data-file", directory.File("none")}}}}}});
  EXPECT_FALSE(elsewhere.shareable);
  EXPECT_TRUE(elsewhere.local_identity.empty());
}

// Every command in turn answers with every kind of value that it should not.
TEST_F(Inventory, mistyped_answers_never_do_harm) {
  const std::vector<json> wrong = {
      nullptr,
      true,
      -1,
      std::numeric_limits<uint64_t>::max(),
      1e300,
      "text",
      json::array(),
      json::array({nullptr, 1, "x", json::array(), json::object()}),
      json::object(),
      {{"qemu", 1},
       {"name", 2},
       {"status", 3},
       {"blocked-reasons", "x"},
       {"inserted", "y"},
       {"type", json::array()}},
      json::array(
          {{{"device", 1},
            {"inserted", {{"file", 2}, {"ro", 3}, {"image", "none"}, {"cache", json::array()}}},
            {"name", 4},
            {"type", 5}}})};
  for (const char* command :
       {"query-version", "query-name", "query-status", "query-cpus-fast", "query-migrate",
        "query-block", "query-named-block-nodes", "human-monitor-command", "qom-list", "qom-get"}) {
    for (const json& value : wrong) {
      Prepare();
      qemu_.Return(command, value);
      const auto inventory = Take();
      if (!inventory.ok()) {
        EXPECT_FALSE(inventory.status().message().empty()) << command << " " << value;
      }
    }
  }
}

std::vector<int> GuestNodes(const std::vector<std::string>& argv, const json& devices = {}) {
  std::vector<MemoryBackend> backends = {{.id = "a"}, {.id = "b"}, {.id = "dimm"}};
  AssignGuestNodes(argv, devices, backends);
  return {backends[0].guest_node, backends[1].guest_node, backends[2].guest_node};
}

TEST(GuestNodes, are_those_of_the_command_line) {
  EXPECT_THAT(GuestNodes({"qemu", "-numa", "node,nodeid=1,cpus=0-1,memdev=a", "-numa",
                          "node,memdev=b,nodeid=0"}),
              ElementsAre(1, 0, -1));
  EXPECT_THAT(GuestNodes({"qemu", "-numa", "node,memdev=b", "-numa", "node,memdev=a"}),
              ElementsAre(1, 0, -1))
      << "numbered in their order";
  EXPECT_THAT(GuestNodes({"qemu", "-numa", "cpu,node-id=0", "-numa", "dist,src=0,dst=1,val=20",
                          "-numa", "node,memdev=a"}),
              ElementsAre(0, -1, -1))
      << "other words are no nodes";
  EXPECT_THAT(GuestNodes({"qemu", "-m", "2G"}), ElementsAre(-1, -1, -1));
  EXPECT_THAT(GuestNodes({"-numa"}), ElementsAre(-1, -1, -1));
  EXPECT_THAT(GuestNodes({"-numa", "node,nodeid=-5,memdev=a"}), ElementsAre(-1, -1, -1));
  EXPECT_THAT(GuestNodes({"-numa", "node,nodeid=99999,memdev=a"}), ElementsAre(-1, -1, -1));
}

TEST(GuestNodes, of_plugged_memory_are_what_qemu_says) {
  const json devices = {
      {{"type", "dimm"}, {"data", {{"memdev", "/objects/dimm"}, {"node", 1}, {"id", "d0"}}}}};
  EXPECT_THAT(GuestNodes({"-numa", "node,memdev=a"}, devices), ElementsAre(0, -1, 1));
}

TEST_F(Inventory, virtual_cpus_run_where_their_threads_may) {
  qemu_.Return("query-cpus-fast", {{{"thread-id", ::gettid()}, {"props", {{"node-id", 0}}}},
                                   {{"thread-id", 0x3fffffff}}});
  const auto inventory = Take();
  ASSERT_TRUE(inventory.ok());
  const std::vector<VcpuPlace> places = VcpusOf(*inventory);
  ASSERT_EQ(places.size(), 1u) << "a thread that has ended is nowhere";
  EXPECT_EQ(places[0].cpus, AffinityOf(0));
  EXPECT_EQ(places[0].guest_node, -1)
      << "a guest without NUMA has no nodes, whatever QEMU calls them";
}

TEST_F(Inventory, memory_backend_without_size_is_an_error) {
  qemu_.Return("qom-get", "text");
  const auto inventory = Take();
  EXPECT_TRUE(absl::IsInvalidArgument(inventory.status()));
  EXPECT_THAT(inventory.status().message(), testing::HasSubstr("ram"));
}

TEST_F(Inventory, refusal_of_a_needed_answer_is_passed_on) {
  for (const char* command : {"query-version", "query-status", "query-block", "qom-list"}) {
    Prepare();
    qemu_.Refuse(command, "not today");
    EXPECT_TRUE(absl::IsFailedPrecondition(Take().status())) << command;
  }
}

TEST_F(Inventory, monitor_without_human_commands_will_do) {
  qemu_.Refuse("human-monitor-command", "not built in");
  const auto inventory = Take();
  ASSERT_TRUE(inventory.ok());
  EXPECT_TRUE(inventory->network_backends.empty());
}

TEST_F(Inventory, qemu_that_ends_half_way_is_an_error) {
  qemu_.HangUpAt("query-block");
  EXPECT_TRUE(absl::IsUnavailable(Take().status()));
}

}  // namespace
}  // namespace ramferry
