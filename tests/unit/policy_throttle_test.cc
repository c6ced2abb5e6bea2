// Taking CPU time from a QEMU: it is taken, and given back on every path.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "fmt/format.h"
#include "hypervisor-glue/qemu/cpu_limit.h"
#include "tests/unit/engine_scratch.h"

namespace ramferry {
namespace {

// A cgroup file system and /proc of files.
class Groups {
 public:
  Groups() {
    for (const int thread : {11, 12, 13}) {
      Write(fmt::format("proc/10/task/{}/cgroup", thread),
            thread == 13 ? "0::/vm/emulator\n" : "1:cpu:/\n0::/vm/vcpus\n");
    }
    Write("cgroup/vm/vcpus/cgroup.threads", "11\n12\n");
    Write("cgroup/vm/vcpus/cpu.max", "max 100000\n");
  }
  void Write(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = scratch_.path() + "/" + name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  [[nodiscard]] std::string Limit() const {
    std::ifstream file(scratch_.path() + "/cgroup/vm/vcpus/cpu.max");
    std::string line;
    std::getline(file, line);
    return line;
  }
  [[nodiscard]] absl::StatusOr<CpuLimit> Find() const {
    return CpuLimit::Find(10, {11, 12}, scratch_.path() + "/cgroup", scratch_.path() + "/proc");
  }

 private:
  ScratchDirectory scratch_;
};

TEST(CpuLimit, gives_each_virtual_cpu_its_share_and_puts_back_what_was_there) {
  const Groups groups;
  groups.Write("cgroup/vm/vcpus/cpu.max", "150000 100000\n");
  const auto limit = groups.Find();
  ASSERT_TRUE(limit.ok()) << limit.status();
  ASSERT_TRUE(limit->Set(0.5).ok());
  EXPECT_EQ(groups.Limit(), "10007 10007");  // half of each of two
  ASSERT_TRUE(limit->Set(0.01).ok());
  EXPECT_EQ(groups.Limit(), "1000 10007");  // the kernel takes no less
  ASSERT_TRUE(limit->Remove().ok());
  EXPECT_EQ(groups.Limit(), "150000 100000");
}

TEST(CpuLimit, another_process_takes_it_off_by_the_record) {
  const Groups groups;
  groups.Write("cgroup/vm/vcpus/cpu.max", "70000 100000\n");
  const auto limit = groups.Find();
  ASSERT_TRUE(limit.ok());
  const std::string record = limit->record().dump();
  ASSERT_TRUE(limit->Set(0.2).ok());
  ASSERT_TRUE(CpuLimit::FromRecord(nlohmann::json::parse(record)).Remove().ok());
  EXPECT_EQ(groups.Limit(), "70000 100000");
}

TEST(CpuLimit, limit_that_somebody_else_has_set_meanwhile_stays) {
  const Groups groups;
  const auto limit = groups.Find();
  ASSERT_TRUE(limit.ok());
  ASSERT_TRUE(limit->Set(0.2).ok());
  groups.Write("cgroup/vm/vcpus/cpu.max", "30000 100000\n");
  ASSERT_TRUE(limit->Remove().ok());
  EXPECT_EQ(groups.Limit(), "30000 100000");
}

TEST(CpuLimit, group_with_other_processes_in_it_is_left_alone) {
  const Groups groups;
  groups.Write("cgroup/vm/vcpus/cgroup.threads", "11\n12\n99\n");
  EXPECT_EQ(groups.Find().status().code(), absl::StatusCode::kNotFound);
}

TEST(CpuLimit, group_with_other_groups_below_it_is_left_alone) {
  const Groups groups;
  groups.Write("cgroup/vm/vcpus/others/cgroup.threads", "99\n");
  EXPECT_EQ(groups.Find().status().code(), absl::StatusCode::kNotFound);
}

TEST(CpuLimit, limit_of_a_killed_ramferry_is_not_taken_for_the_owners) {
  const Groups groups;
  groups.Write("cgroup/vm/vcpus/cpu.max", "2000 10007\n");
  const auto limit = groups.Find();
  ASSERT_TRUE(limit.ok());
  ASSERT_TRUE(limit->Remove().ok());
  EXPECT_EQ(groups.Limit(), "max 100000");
}

}  // namespace
}  // namespace ramferry
