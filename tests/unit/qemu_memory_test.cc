// Guest memory is found by what the kernel says that a process has mapped, and by nothing else.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>

#include "fake_qmp_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/qemu/process_memory.h"

namespace ramferry {
namespace {

constexpr uint64_t kSize = 16 * 4096;

TEST(ParseMaps, fields_of_a_line) {
  const auto maps = ParseMaps(
      "7f0000000000-7f0004000000 rw-s 00001000 fd:01 42                         /dev/shm/a b\n"
      "55d0c0000000-55d0c0001000 r-xp 00000000 00:00 0 \n");
  ASSERT_EQ(maps.size(), 2u);
  EXPECT_EQ(maps[0].start, 0x7f0000000000u);
  EXPECT_EQ(maps[0].end, 0x7f0004000000u);
  EXPECT_TRUE(maps[0].shared);
  EXPECT_EQ(maps[0].file_offset, 0x1000u);
  EXPECT_EQ(maps[0].device, (uint64_t{0xfd} << 32) | 1);
  EXPECT_EQ(maps[0].inode, 42u);
  EXPECT_EQ(maps[0].path, "/dev/shm/a b");
  EXPECT_FALSE(maps[1].shared);
  EXPECT_EQ(maps[1].inode, 0u);
  EXPECT_EQ(maps[1].path, "");
}

TEST(ParseMaps, lines_that_are_none_are_left_out) {
  EXPECT_TRUE(ParseMaps("").empty());
  EXPECT_TRUE(ParseMaps("\n\nnonsense\n1-2\n1-2 rw-s\n1-2 rw-s 0 1:2\n").empty());
  EXPECT_EQ(ParseMaps("nonsense\n1-2 rw-s 0 1:2 3 /x\nmore").size(), 1u);
}

TEST(ReadMaps, own_process_has_a_stack_and_process_0_does_not_exist) {
  const auto maps = ReadMaps(::getpid());
  ASSERT_TRUE(maps.ok());
  EXPECT_TRUE(std::any_of(maps->begin(), maps->end(),
                          [](const ProcessMapping& m) { return m.path == "[stack]"; }));
  EXPECT_FALSE(ReadMaps(0).ok());
}

// A file of `size` bytes, mapped shared into this process.
class Mapping {
 public:
  Mapping(const std::string& path, uint64_t size, int flags = MAP_SHARED) : size_(size) {
    fd_ = UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(size)), 0);
    address_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd_.get(), 0);
    EXPECT_NE(address_, MAP_FAILED);
  }
  ~Mapping() { ::munmap(address_, size_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  [[nodiscard]] uint64_t address() const { return reinterpret_cast<uint64_t>(address_); }
  [[nodiscard]] void* at(uint64_t offset) const { return static_cast<char*>(address_) + offset; }
  [[nodiscard]] uint64_t inode() const {
    struct stat status {};
    ::fstat(fd_.get(), &status);
    return status.st_ino;
  }

 private:
  uint64_t size_;
  UniqueFd fd_;
  void* address_;
};

class FindMapped : public testing::Test {
 protected:
  void SetUp() override {
    // map_files needs CAP_CHECKPOINT_RESTORE, also for oneself.
    const Mapping probe(directory_.File("probe"), kSize);
    if (absl::IsPermissionDenied(Find("probe").status())) GTEST_SKIP() << "not root";
  }
  absl::StatusOr<MappedFile> Find(const std::string& name, uint64_t size = kSize,
                                  bool writable = false, const std::string& id = "ram") {
    const auto maps = ReadMaps(::getpid());
    if (!maps.ok()) return maps.status();
    return FindMappedFile(::getpid(), *maps, directory_.File(name), id, size, writable);
  }
  static uint64_t InodeOf(const MappedFile& file) {
    struct stat status {};
    EXPECT_EQ(::fstat(file.fd.get(), &status), 0);
    return status.st_ino;
  }
  TestDirectory directory_;
};

TEST_F(FindMapped, file_is_found_where_it_is_mapped) {
  const Mapping memory(directory_.File("ram"), kSize);
  const auto found = Find("ram");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->address, memory.address());
  EXPECT_EQ(found->path, directory_.File("ram"));
  EXPECT_EQ(InodeOf(*found), memory.inode());
}

TEST_F(FindMapped, file_is_opened_for_writing_only_when_asked) {
  const Mapping memory(directory_.File("ram"), kSize);
  const auto reading = Find("ram");
  const auto writing = Find("ram", kSize, /*writable=*/true);
  ASSERT_TRUE(reading.ok() && writing.ok());
  EXPECT_EQ(::pwrite(reading->fd.get(), "x", 1, 0), -1);
  EXPECT_EQ(::pwrite(writing->fd.get(), "x", 1, 0), 1);
  EXPECT_EQ(*static_cast<char*>(memory.at(0)), 'x');
}

TEST_F(FindMapped, backend_in_several_kernel_mappings_is_one) {
  const Mapping memory(directory_.File("ram"), kSize);
  ASSERT_EQ(::madvise(memory.at(4 * 4096), 4 * 4096, MADV_DONTDUMP), 0);
  const auto maps = ReadMaps(::getpid());
  ASSERT_TRUE(maps.ok());
  ASSERT_EQ(std::count_if(maps->begin(), maps->end(),
                          [&](const ProcessMapping& m) { return m.inode == memory.inode(); }),
            3);
  const auto found = Find("ram");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->address, memory.address());
}

TEST_F(FindMapped, backend_with_a_hole_in_it_is_none) {
  const Mapping memory(directory_.File("ram"), kSize);
  ASSERT_EQ(::munmap(memory.at(4 * 4096), 4096), 0);
  EXPECT_TRUE(absl::IsNotFound(Find("ram").status()));
}

TEST_F(FindMapped, removed_file_is_still_found) {
  const Mapping memory(directory_.File("ram"), kSize);
  ASSERT_EQ(::unlink(directory_.File("ram").c_str()), 0);
  // Another file of that name is not the guest's memory.
  const UniqueFd impostor(::creat(directory_.File("ram").c_str(), 0600));
  const auto found = Find("ram");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(InodeOf(*found), memory.inode());
  EXPECT_EQ(found->path, directory_.File("ram"));
}

TEST_F(FindMapped, private_short_and_foreign_mappings_are_not_taken) {
  const Mapping private_memory(directory_.File("private"), kSize, MAP_PRIVATE);
  const Mapping short_memory(directory_.File("short"), kSize / 2);
  const Mapping other(directory_.File("ram2"), kSize);
  EXPECT_TRUE(absl::IsNotFound(Find("private").status()));
  EXPECT_TRUE(absl::IsNotFound(Find("short").status()));
  EXPECT_TRUE(absl::IsNotFound(Find("ram").status()));  // only the beginning of a name
}

TEST_F(FindMapped, file_that_qemu_made_in_a_directory_is_found) {
  ASSERT_EQ(::mkdir(directory_.File("huge").c_str(), 0700), 0);
  const Mapping memory(directory_.File("huge/qemu_back_mem.ram.AbCdEf"), kSize);
  ASSERT_EQ(::unlink(directory_.File("huge/qemu_back_mem.ram.AbCdEf").c_str()), 0);
  for (const char* name : {"huge", "huge/"}) {
    const auto found = Find(name);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(InodeOf(*found), memory.inode());
  }
}

// Two NUMA nodes on one hugetlbfs mount: both backends name the same directory.
TEST_F(FindMapped, backends_in_one_directory_are_told_apart) {
  ASSERT_EQ(::mkdir(directory_.File("huge").c_str(), 0700), 0);
  const Mapping node0(directory_.File("huge/qemu_back_mem.ram.AbCdEf"), kSize);
  const Mapping node1(directory_.File("huge/qemu_back_mem.ram.1.GhIjKl"), kSize);
  const Mapping node2(directory_.File("huge/qemu_back_mem._objects_ram2.MnOpQr"), kSize);
  const auto inode = [this](const std::string& id) {
    const auto found = Find("huge", kSize, false, id);
    return found.ok() ? InodeOf(*found) : 0;
  };
  EXPECT_EQ(inode("ram"), node0.inode());
  EXPECT_EQ(inode("ram.1"), node1.inode());
  EXPECT_EQ(inode("ram2"), node2.inode());
  EXPECT_EQ(inode("ra"), 0u);
}

}  // namespace
}  // namespace ramferry
