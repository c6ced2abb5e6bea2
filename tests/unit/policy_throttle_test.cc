// Taking CPU time from a QEMU: it is taken, and given back on every path.
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/deadline.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/cpu_limit.h"
#include "hypervisor-glue/qemu/vcpu_duty_cycle.h"
#include "tests/unit/engine_scratch.h"

namespace ramferry {
namespace {

using std::chrono::milliseconds;

// A process that does nothing but burn CPU time, in its only thread.
class Burner {
 public:
  Burner() : pid_(::fork()) {
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::signal(SIGUSR1, [](int) { ::_exit(7); });
    std::atomic<uint64_t> turns{0};
    for (;;) ++turns;
  }
  ~Burner() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  void Forget() { pid_ = 0; }
  // Scheduler state: R, S, T, t (traced and stopped), ...
  [[nodiscard]] char State() const { return Field(2)[0]; }
  [[nodiscard]] int64_t Ticks() const { return std::stoll(Field(13)); }
  [[nodiscard]] int64_t Tracer() const {
    std::ifstream status(fmt::format("/proc/{}/status", pid_));
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("TracerPid:")) return std::stoll(line.substr(10));
    }
    return -1;
  }

 private:
  [[nodiscard]] std::string Field(int number) const {
    std::ifstream stat(fmt::format("/proc/{}/stat", pid_));
    std::string word;
    for (int i = 0; i <= number; ++i) stat >> word;
    return word;
  }
  pid_t pid_;
};

// Until it holds; the test fails when it does not within half a minute.
template <class Condition>
void Eventually(Condition condition) {
  for (const Deadline end = In(milliseconds(30'000)); !condition();) {
    ASSERT_LT(Clock::now(), end);
    std::this_thread::sleep_for(milliseconds(1));
  }
}

TEST(VcpuDutyCycle, thread_runs_and_stands_still_by_turns_and_runs_on_afterwards) {
  const Burner burner;
  auto throttle = VcpuDutyCycle::Start({burner.pid()}, 0.3);
  ASSERT_TRUE(throttle.ok()) << throttle.status();
  Eventually([&] { return burner.State() == 't'; });
  Eventually([&] { return burner.State() == 'R'; });
  Eventually([&] { return burner.State() == 't'; });
  throttle->reset();
  EXPECT_EQ(burner.Tracer(), 0);
  const int64_t ticks = burner.Ticks();
  Eventually([&] { return burner.Ticks() > ticks; });
}

TEST(VcpuDutyCycle, signals_reach_a_throttled_thread) {
  Burner burner;
  auto throttle = VcpuDutyCycle::Start({burner.pid()}, 0.3);
  ASSERT_TRUE(throttle.ok()) << throttle.status();
  Eventually([&] { return burner.State() == 't'; });
  ::kill(burner.pid(), SIGUSR1);
  // Its handler ends it; the tracer, as its parent, sees that.
  Eventually([&] { return burner.Tracer() < 0; });
  burner.Forget();
}

TEST(VcpuDutyCycle, thread_that_has_ended_is_no_error) {
  pid_t gone = 0;
  {
    const Burner burner;
    gone = burner.pid();
  }
  EXPECT_TRUE(VcpuDutyCycle::Start({gone}, 0.5).ok());
}

TEST(VcpuDutyCycle, thread_of_another_tracer_is_refused_with_what_to_do) {
  const Burner burner;
  auto first = VcpuDutyCycle::Start({burner.pid()}, 0.5);
  ASSERT_TRUE(first.ok());
  const auto second = VcpuDutyCycle::Start({burner.pid()}, 0.5);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kPermissionDenied);
}

// Killed in the middle of a pause, it leaves the thread running: that is the kernel's doing.
TEST(VcpuDutyCycle, killed_throttler_leaves_the_thread_running) {
  const Burner burner;
  const pid_t throttler = ::fork();
  if (throttler == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto throttle = VcpuDutyCycle::Start({burner.pid()}, 0.05);
    for (;;) ::pause();
  }
  Eventually([&] { return burner.State() == 't'; });
  ::kill(throttler, SIGKILL);
  ::waitpid(throttler, nullptr, 0);
  EXPECT_EQ(burner.Tracer(), 0);
  const int64_t ticks = burner.Ticks();
  Eventually([&] { return burner.Ticks() > ticks; });
}

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
