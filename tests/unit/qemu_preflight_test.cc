// Stage 0: every reason against a move is found, one by one and all at once, and none is made up.
#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/qemu/preflight.h"

namespace ramferry {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

MemoryBackend Ram(const std::string& id = "ram") {
  return {.id = id,
          .type = "memory-backend-file",
          .size = 64 << 20,
          .share = true,
          .mem_path = "/dev/shm/" + id};
}

QemuDisk Disk(const std::string& device = "disk0") {
  return {.description = {.device = device,
                          .file = "/srv/web1.img",
                          .virtual_size = MiB(8),
                          .shareable = true,
                          .local_identity = "boot:8:1:42"}};
}

QemuInventory Movable() {
  return {.name = "web1",
          .version = "7.2.22",
          .machine = "pc-q35-7.2",
          .status = "running",
          .vcpus = 2,
          .cpu_features = "1.0.EDX=ff;7.0.EBX=22",
          .backends = {Ram()},
          .disks = {.disks = {Disk()}},
          .device_types = {"virtio-net-pci", "virtio-blk-pci"},
          .network_backends = {"net0: type=tap,ifname=tap0"}};
}

QemuInventory Waiting() {
  QemuInventory inventory = Movable();
  inventory.name = "qemu-17";
  inventory.status = "inmigrate";
  return inventory;
}

// One thing that is wrong, and words that its reason must have: the object, and what to do.
struct Case {
  const char* name;
  std::function<void(QemuInventory&)> change;
  std::vector<std::string> words;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}
std::string NameOfCase(const testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

const std::vector<Case>& MemoryAndDeviceCases() {
  static const std::vector<Case> cases = {
      {"memory_that_is_no_file",
       [](QemuInventory& q) { q.backends[0].type = "memory-backend-ram"; },
       {"'ram'", "memory-backend-ram", "memory-backend-file"}},
      {"memfd",
       [](QemuInventory& q) { q.backends[0].type = "memory-backend-memfd"; },
       {"memory-backend-memfd", "mem-path="}},
      {"private_memory",
       [](QemuInventory& q) { q.backends[0].share = false; },
       {"'ram'", "share=on"}},
      {"read_only_memory",
       [](QemuInventory& q) { q.backends[0].read_only = true; },
       {"'ram'", "readonly"}},
      {"memory_inside_a_file",
       [](QemuInventory& q) { q.backends[0].file_offset = 4096; },
       {"'ram'", "offset="}},
      {"memory_on_a_network_file_system",
       [](QemuInventory& q) { q.backends[0].on_shared_filesystem = true; },
       {"'ram'", "/dev/shm/ram", "network file system"}},
      {"vhost_scsi_device",
       [](QemuInventory& q) { q.device_types.push_back("vhost-scsi-pci"); },
       {"vhost-scsi-pci", "unplug"}},
      {"nvdimm",
       [](QemuInventory& q) { q.device_types.push_back("nvdimm"); },
       {"nvdimm", "unplug"}},
      {"virtio_pmem",
       [](QemuInventory& q) { q.device_types.push_back("virtio-pmem-pci"); },
       {"virtio-pmem-pci", "unplug"}},
      {"vfio_device",
       [](QemuInventory& q) { q.device_types.push_back("vfio-pci"); },
       {"vfio-pci", "unplug"}},
      {"vhost_user_device",
       [](QemuInventory& q) { q.device_types.push_back("vhost-user-fs-pci"); },
       {"vhost-user-fs-pci", "unplug"}},
      {"vhost_vdpa_device",
       [](QemuInventory& q) { q.device_types.push_back("vhost-vdpa-device-pci"); },
       {"vhost-vdpa-device-pci", "unplug"}},
      {"ivshmem",
       [](QemuInventory& q) { q.device_types.push_back("ivshmem-plain"); },
       {"ivshmem-plain", "unplug"}},
      {"vhost_user_network",
       [](QemuInventory& q) { q.network_backends.push_back("net1: type=vhost-user,dev=c0"); },
       {"net1", "tap"}},
      {"vhost_vdpa_network",
       [](QemuInventory& q) { q.network_backends.push_back("net1: type=vhost-vdpa"); },
       {"net1", "tap"}},
      {"blocker_of_qemu",
       [](QemuInventory& q) { q.blockers.push_back("nvdimm is in use"); },
       {"nvdimm is in use"}},
  };
  return cases;
}

class SourceRefuses : public testing::TestWithParam<Case> {};
TEST_P(SourceRefuses, with_one_reason_that_says_what_to_do) {
  QemuInventory inventory = Movable();
  GetParam().change(inventory);
  const auto reasons = SourceReasons(inventory);
  ASSERT_EQ(reasons.size(), 1u) << JoinReasons(reasons);
  for (const std::string& word : GetParam().words) EXPECT_THAT(reasons[0], HasSubstr(word));
}
INSTANTIATE_TEST_SUITE_P(Shared, SourceRefuses, testing::ValuesIn(MemoryAndDeviceCases()),
                         NameOfCase);
INSTANTIATE_TEST_SUITE_P(
    Own, SourceRefuses,
    testing::Values(
        Case{"no_backend",
             [](QemuInventory& q) { q.backends.clear(); },
             {"memory-backend-file", "share=on", "mem-path=", "libvirt"}},
        Case{"block_job",
             [](QemuInventory& q) { q.disks.jobs.emplace_back("disk0 (mirror)"); },
             {"disk0 (mirror)", "block-job-cancel"}},
        Case{"too_many_backends",
             [](QemuInventory& q) { q.backends.assign(kMaxRegions + 1, Ram()); },
             {"257", "256"}},
        Case{"guest_that_ended", [](QemuInventory& q) { q.status = "shutdown"; }, {"'shutdown'"}},
        Case{"guest_with_an_io_error",
             [](QemuInventory& q) { q.status = "io-error"; },
             {"'io-error'"}},
        Case{"guest_that_is_incoming",
             [](QemuInventory& q) { q.status = "inmigrate"; },
             {"'inmigrate'"}},
        Case{"state_unknown", [](QemuInventory& q) { q.status = ""; }, {"''"}}),
    NameOfCase);

class DestinationRefuses : public testing::TestWithParam<Case> {};
TEST_P(DestinationRefuses, with_one_reason_that_says_what_to_do) {
  QemuInventory inventory = Waiting();
  GetParam().change(inventory);
  const auto reasons = DestinationReasons(Describe(Movable()), inventory);
  ASSERT_EQ(reasons.size(), 1u) << JoinReasons(reasons);
  for (const std::string& word : GetParam().words) EXPECT_THAT(reasons[0], HasSubstr(word));
}
INSTANTIATE_TEST_SUITE_P(Shared, DestinationRefuses, testing::ValuesIn(MemoryAndDeviceCases()),
                         NameOfCase);
INSTANTIATE_TEST_SUITE_P(
    Own, DestinationRefuses,
    testing::Values(
        Case{"guest_that_runs_already",
             [](QemuInventory& q) { q.status = "running"; },
             {"'running'", "-incoming defer"}},
        Case{"other_machine",
             [](QemuInventory& q) { q.machine = "pc-i440fx-7.2"; },
             {"pc-q35-7.2", "pc-i440fx-7.2"}},
        Case{"older_machine_version",
             [](QemuInventory& q) { q.machine = "pc-q35-7.1"; },
             {"-machine pc-q35-7.2"}},
        Case{"older_qemu", [](QemuInventory& q) { q.version = "7.1.99"; }, {"7.1.99", "7.2.22"}},
        Case{"much_older_qemu", [](QemuInventory& q) { q.version = "6.10.0"; }, {"6.10.0"}},
        Case{"fewer_vcpus", [](QemuInventory& q) { q.vcpus = 1; }, {"-smp 2"}},
        Case{"more_vcpus", [](QemuInventory& q) { q.vcpus = 3; }, {"-smp 2"}},
        Case{"lesser_processor",
             [](QemuInventory& q) { q.cpu_features = "1.0.EDX=ff;7.0.EBX=2"; },
             {"7.0.EBX=20", "-cpu"}},
        Case{"smaller_memory",
             [](QemuInventory& q) { q.backends[0].size = 32 << 20; },
             {"'ram'", "33554432", "67108864"}},
        Case{"memory_of_another_name",
             [](QemuInventory& q) { q.backends[0].id = "mem"; },
             {"'ram'", "id=ram,size=67108864"}},
        Case{"more_memory",
             [](QemuInventory& q) { q.backends.push_back(Ram("more")); },
             {"more memory backends"}},
        Case{"disk_of_another_name",
             [](QemuInventory& q) { q.disks.disks[0].description.device = "other"; },
             {"'disk0'", "does not exist"}},
        Case{"one_disk_too_many",
             [](QemuInventory& q) { q.disks.disks.push_back(Disk("more")); },
             {"1 disks", "2 here"}},
        Case{"disk_of_another_size",
             [](QemuInventory& q) { q.disks.disks[0].description.virtual_size = MiB(9); },
             {"'disk0'", "9437184", "8388608"}},
        Case{"disk_read_only_here",
             [](QemuInventory& q) { q.disks.disks[0].description.read_only = true; },
             {"'disk0'", "read-only"}},
        Case{"disk_on_local_storage",
             [](QemuInventory& q) {
               q.disks.disks[0].description.shareable = false;
               q.disks.disks[0].description.local_identity = "other boot:8:1:42";
             },
             {"'disk0'", "NFS"}},
        Case{"disk_of_no_known_identity",
             [](QemuInventory& q) {
               q.disks.disks[0].description.shareable = false;
               q.disks.disks[0].description.local_identity = "";
             },
             {"'disk0'", "/srv/web1.img"}}),
    NameOfCase);

TEST(Preflight, movable_guest_and_fitting_destination_have_no_reason) {
  EXPECT_THAT(SourceReasons(Movable()), IsEmpty());
  EXPECT_THAT(DestinationReasons(Describe(Movable()), Waiting()), IsEmpty());
  QemuInventory paused = Movable();
  paused.status = "paused";
  EXPECT_THAT(SourceReasons(paused), IsEmpty());
  EXPECT_FALSE(Describe(paused).running);
}

TEST(Preflight, missing_disk_is_named) {
  QemuInventory here = Waiting();
  here.disks.disks.clear();
  EXPECT_THAT(DestinationReasons(Describe(Movable()), here),
              ElementsAre(HasSubstr("1 disks"), HasSubstr("'disk0'")));
}

TEST(Preflight, newer_qemu_and_another_bugfix_release_will_do) {
  for (const char* version : {"7.2.0", "7.3.0", "7.10.0", "8.0.0", "10.0.2"}) {
    QemuInventory here = Waiting();
    here.version = version;
    EXPECT_THAT(DestinationReasons(Describe(Movable()), here), IsEmpty()) << version;
  }
}

TEST(Preflight, any_migration_of_qemu_itself_under_way_is_a_reason) {
  for (const char* status : {"setup", "active", "pre-switchover", "device", "cancelling",
                             "postcopy-active", "postcopy-paused", "colo", "wait-unplug"}) {
    QemuInventory inventory = Movable();
    inventory.migration_status = status;
    EXPECT_THAT(SourceReasons(inventory), ElementsAre(HasSubstr(status))) << status;
  }
  for (const char* status : {"", "none", "completed", "cancelled", "failed"}) {
    QemuInventory inventory = Movable();
    inventory.migration_status = status;
    EXPECT_THAT(SourceReasons(inventory), IsEmpty()) << status;
  }
}

TEST(Preflight, the_very_same_local_file_is_shared) {
  QemuInventory source = Movable();
  QemuInventory here = Waiting();
  source.disks.disks[0].description.shareable = here.disks.disks[0].description.shareable = false;
  EXPECT_THAT(DestinationReasons(Describe(source), here), IsEmpty());
}

TEST(Preflight, disk_shared_on_one_side_only_is_not_shared) {
  QemuInventory source = Movable();
  QemuInventory here = Waiting();
  here.disks.disks[0].description.shareable = false;
  here.disks.disks[0].description.local_identity = "another";
  EXPECT_EQ(DestinationReasons(Describe(source), here).size(), 1u);
}

TEST(Preflight, read_only_disk_need_not_be_shared) {
  QemuInventory source = Movable();
  QemuInventory here = Waiting();
  for (QemuInventory* side : {&source, &here}) {
    side->disks.disks[0].description.shareable = false;
    side->disks.disks[0].description.read_only = true;
    side->disks.disks[0].description.local_identity = "";
  }
  EXPECT_THAT(DestinationReasons(Describe(source), here), IsEmpty());
}

TEST(Preflight, better_processor_and_one_that_is_not_known_will_do) {
  for (const char* features : {"1.0.EDX=1ff;7.0.EBX=ffff;d.1.EAX=f", ""}) {
    QemuInventory here = Waiting();
    here.cpu_features = features;
    EXPECT_THAT(DestinationReasons(Describe(Movable()), here), IsEmpty()) << features;
  }
  for (const char* blueprint : {"", "{}", "not JSON", "{\"cpu_features\": 7}"}) {
    GuestDescription guest = Describe(Movable());
    guest.blueprint = blueprint;
    EXPECT_THAT(DestinationReasons(guest, Waiting()), IsEmpty()) << blueprint;
  }
}

// A person who must restart a guest wants to do it once.
TEST(Preflight, all_reasons_are_listed_at_once) {
  QemuInventory source = Movable();
  source.backends.push_back(Ram("second"));
  source.backends.push_back(Ram("third"));
  source.backends[0].type = "memory-backend-ram";
  source.backends[1].share = false;
  source.backends[1].read_only = true;
  source.backends[2].file_offset = 1;
  source.status = "io-error";
  source.migration_status = "active";
  source.device_types = {"vfio-pci", "vhost-user-blk-pci", "ivshmem-doorbell"};
  source.network_backends = {"net0: type=vhost-user"};
  source.blockers = {"one", "two"};
  const auto reasons = SourceReasons(source);
  EXPECT_EQ(reasons.size(), 12u) << JoinReasons(reasons);

  QemuInventory here = Waiting();
  here.status = "running";
  here.machine = "microvm";
  here.version = "4.0.0";
  here.vcpus = 64;
  here.backends[0].size = 4096;
  here.backends[0].share = false;
  here.disks.disks[0].description.virtual_size = MiB(1);
  here.blockers = {"one"};
  const auto all = DestinationReasons(Describe(Movable()), here);
  EXPECT_EQ(all.size(), 8u) << JoinReasons(all);
  const std::string text = JoinReasons(all);
  for (const std::string& reason : all) EXPECT_THAT(text, HasSubstr("\n  - " + reason));
}

TEST(Preflight, description_is_what_the_inventory_says) {
  const GuestDescription guest = Describe(Movable());
  EXPECT_EQ(guest.name, "web1");
  EXPECT_EQ(guest.hypervisor, "qemu");
  EXPECT_EQ(guest.hypervisor_version, "7.2.22");
  EXPECT_EQ(guest.machine, "pc-q35-7.2");
  EXPECT_EQ(guest.vcpus, 2u);
  EXPECT_TRUE(guest.running);
  ASSERT_EQ(guest.regions.size(), 1u);
  EXPECT_EQ(guest.regions[0].name, "ram");
  EXPECT_EQ(guest.regions[0].size, MiB(64));
  ASSERT_EQ(guest.disks.size(), 1u);
  EXPECT_EQ(guest.disks[0], Disk().description);
}

}  // namespace
}  // namespace ramferry
