// Block devices of several kinds, as the kernel shows them under /sys.
#include <gtest/gtest.h>
#include <sys/sysmacros.h>

#include <filesystem>
#include <fstream>

#include "hypervisor-glue/qemu/block_identity.h"
#include "tests/unit/engine_scratch.h"

namespace ramferry {
namespace {

namespace fs = std::filesystem;

class BlockIdentity : public ::testing::Test {
 protected:
  void Write(const fs::path& file, const std::string& text) {
    const fs::path path = sysfs() / "devices" / file;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text << '\n';
  }
  // Where the kernel has the device's directory.
  void Number(const std::string& number, const fs::path& directory) {
    fs::create_directories(sysfs() / "dev/block");
    fs::create_directories(sysfs() / "devices" / directory);
    fs::create_directory_symlink(sysfs() / "devices" / directory, sysfs() / "dev/block" / number);
  }
  void Slave(const fs::path& above, const fs::path& below) {
    fs::create_directories(sysfs() / "devices" / above / "slaves");
    fs::create_directory_symlink(sysfs() / "devices" / below,
                                 sysfs() / "devices" / above / "slaves" / below.filename());
  }
  std::string Of(unsigned int major_number, unsigned int minor_number) {
    return BlockDeviceIdentity(makedev(major_number, minor_number), sysfs());
  }
  void Disk(const std::string& name, const std::string& number, const std::string& wwid) {
    Write("block/" + name + "/device/wwid", wwid);
    Number(number, "block/" + name);
  }

 private:
  [[nodiscard]] fs::path sysfs() const { return scratch_.path(); }
  const ScratchDirectory scratch_;
};

TEST_F(BlockIdentity, scsi_disk_is_its_worldwide_name) {
  Disk("sda", "8:0", "naa.600140512345678901234567890abcde");
  Disk("sdb", "8:16", "eui.0025385b71b0a1c2");
  EXPECT_EQ(Of(8, 0), "naa.600140512345678901234567890abcde");
  EXPECT_EQ(Of(8, 16), "eui.0025385b71b0a1c2");
}

TEST_F(BlockIdentity, what_was_chosen_freely_is_no_identity) {
  Disk("sda", "8:0", "t10.ATA     QEMU HARDDISK   QM00001");
  Disk("sdb", "8:16", "naa.3000000000000001");
  Disk("sdc", "8:32", "");
  Number("7:0", "block/loop0");
  EXPECT_EQ(Of(8, 0), "");
  EXPECT_EQ(Of(8, 16), "");
  EXPECT_EQ(Of(8, 32), "");
  EXPECT_EQ(Of(7, 0), "");
  EXPECT_EQ(Of(9, 9), "") << "there is no such device";
}

TEST_F(BlockIdentity, nvme_namespace_is_its_eui_or_uuid_but_not_its_serial_number) {
  Write("nvme/nvme0n1/wwid", "uuid.0f0e0d0c-0b0a-0908-0706-050403020100");
  Number("259:0", "nvme/nvme0n1");
  Write("nvme/nvme1n1/wwid", "nvme.1b36-64656164-51454d55-00000001");
  Number("259:1", "nvme/nvme1n1");
  EXPECT_EQ(Of(259, 0), "uuid.0f0e0d0c-0b0a-0908-0706-050403020100");
  EXPECT_EQ(Of(259, 1), "");
}

TEST_F(BlockIdentity, partition_is_a_place_on_its_disk) {
  Disk("sda", "8:0", "naa.5000c500a1b2c3d4");
  Write("block/sda/sda2/partition", "2");
  Write("block/sda/sda2/start", "2048");
  Write("block/sda/sda2/size", "40960");
  Number("8:2", "block/sda/sda2");
  EXPECT_EQ(Of(8, 2), "naa.5000c500a1b2c3d4 at 2048+40960");
}

TEST_F(BlockIdentity, multipath_device_is_what_its_paths_are) {
  Write("block/dm-0/dm/uuid", "mpath-3600140512345678901234567890abcde");
  Number("253:0", "block/dm-0");
  Write("block/dm-1/dm/uuid", "mpath-1QEMU_QEMU_HARDDISK_drive0");
  Number("253:1", "block/dm-1");
  EXPECT_EQ(Of(253, 0), "naa.600140512345678901234567890abcde");
  EXPECT_EQ(Of(253, 1), "");
}

TEST_F(BlockIdentity, logical_volume_counts_only_on_disks_that_can_be_told) {
  Disk("sda", "8:0", "naa.600140512345678901234567890abcde");
  Disk("sdb", "8:16", "naa.600140512345678901234567890abcdf");
  Write("block/dm-0/dm/uuid", "LVM-group-volume");
  Number("253:0", "block/dm-0");
  Slave("block/dm-0", "block/sdb");
  Slave("block/dm-0", "block/sda");
  EXPECT_EQ(Of(253, 0),
            "LVM-group-volume on naa.600140512345678901234567890abcde, "
            "naa.600140512345678901234567890abcdf");
  // Two hosts made from one image have volumes of the same UUID, on disks of their own.
  Disk("vda", "254:0", "");
  Slave("block/dm-0", "block/vda");
  EXPECT_EQ(Of(253, 0), "");
}

TEST_F(BlockIdentity, layers_that_go_round_have_an_end) {
  Write("block/dm-0/dm/uuid", "LVM-a");
  Number("253:0", "block/dm-0");
  Slave("block/dm-0", "block/dm-0");
  EXPECT_EQ(Of(253, 0), "");
}

}  // namespace
}  // namespace ramferry
