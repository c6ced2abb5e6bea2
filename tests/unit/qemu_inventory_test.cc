// Whatever a monitor answers, asking it what it consists of ends with an inventory or a clear
// error.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>

#include "fake_qmp_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
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
    qemu_.Return("query-cpus-fast", {{{"cpu-index", 0}}, {{"cpu-index", 1}}});
    qemu_.Return("query-migrate",
                 {{"status", "completed"}, {"blocked-reasons", {"a blocker", 7, "another"}}});
    qemu_.Return("query-block", {{{"device", "disk0"},
                                  {"inserted",
                                   {{"file", "nbd://store/web1"},
                                    {"ro", false},
                                    {"cache", {{"direct", true}}},
                                    {"image", {{"virtual-size", 1 << 20}}}}}},
                                 {{"device", "cdrom"}}});
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
      static const json kValues = {{"type", "pc-q35-7.2-machine"},
                                   {"size", 64 << 20},
                                   {"share", true},
                                   {"mem-path", "/dev/shm/web1"},
                                   {"readonly", false}};
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
  ASSERT_EQ(inventory->backends.size(), 1u);
  EXPECT_EQ(inventory->backends[0].id, "ram");
  EXPECT_EQ(inventory->backends[0].type, "memory-backend-file");
  EXPECT_EQ(inventory->backends[0].size, 64u << 20);
  EXPECT_TRUE(inventory->backends[0].share);
  EXPECT_FALSE(inventory->backends[0].read_only);
  EXPECT_EQ(inventory->backends[0].mem_path, "/dev/shm/web1");
  EXPECT_EQ(inventory->backends[0].file_offset, 0u);
  ASSERT_EQ(inventory->disks.size(), 1u);  // an empty drive is no disk
  EXPECT_EQ(inventory->disks[0].description.device, "disk0");
  EXPECT_EQ(inventory->disks[0].description.virtual_size, MiB(1));
  EXPECT_TRUE(inventory->disks[0].description.shareable);  // by URL
  EXPECT_TRUE(inventory->has_direct_disk());
  EXPECT_THAT(inventory->device_types, ElementsAre("virtio-net-pci", "pvpanic"));
  EXPECT_EQ(inventory->network_backends.size(), 2u);
  EXPECT_THAT(inventory->blockers, ElementsAre("a blocker", "another"));
  EXPECT_EQ(inventory->migration_status, "completed");
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
    return inventory->disks.at(0).description;
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
        "query-block", "human-monitor-command", "qom-list", "qom-get"}) {
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
