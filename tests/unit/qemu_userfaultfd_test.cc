// A process from which a userfaultfd is taken goes on as if nothing had happened.
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <thread>

#include "gtest/gtest.h"
#include "hypervisor-glue/qemu/remote_userfaultfd.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;

// What the child tells, in memory that both have.
struct Shared {
  std::atomic<int> go{0};           // set by the test: come to an end
  std::atomic<uint64_t> rounds{0};  // of the child's loop
  std::atomic<uint64_t> other{0};   // of its second thread
  std::atomic<uint64_t> signals{0};
  std::atomic<uint64_t> errors{0};  // of its system calls: what a program would notice
};
Shared* shared = nullptr;

void CountSignal(int) {
  shared->signals.fetch_add(1);
}

// A child process that runs `loop` on its main thread, which must return when shared->go is set.
class Child {
 public:
  explicit Child(const std::function<void()>& loop, bool second_thread = false) {
    shared = new (::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared;
    pid_ = ::fork();
    if (pid_ != 0) return;
    struct sigaction action {};
    action.sa_handler = CountSignal;
    action.sa_flags = SA_RESTART;
    ::sigaction(SIGUSR1, &action, nullptr);
    if (second_thread) {
      std::thread([] {
        sigset_t all;
        sigfillset(&all);
        ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
        for (;;) shared->other.fetch_add(1);
      }).detach();
    }
    shared->rounds.fetch_add(1);
    loop();
    ::_exit(7);
  }
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::munmap(shared, sizeof(Shared));
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  void WaitUntilBegun() const {
    while (shared->rounds.load() == 0) std::this_thread::sleep_for(1ms);
  }
  [[nodiscard]] size_t open_fds() const {
    size_t count = 0;
    for (const auto& entry :
         std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/fd")) {
      static_cast<void>(entry);
      ++count;
    }
    return count;
  }
  // Its exit status, after it was asked to come to an end.
  int End() {
    shared->go.store(1);
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    pid_ = 0;
    return status;
  }

 private:
  pid_t pid_ = 0;
};

bool Ended(int status) {
  return WIFEXITED(status) && WEXITSTATUS(status) == 7;
}

// Whether this kernel and these rights allow it at all: one attempt on an idle child.
class Userfaultfd : public testing::Test {
 protected:
  void SetUp() override {
    const Child child([] { ::pause(); });
    child.WaitUntilBegun();
    const auto fd = TakeUserfaultfd(child.pid());
    if (absl::IsPermissionDenied(fd.status())) GTEST_SKIP() << fd.status();
    ASSERT_TRUE(fd.ok()) << fd.status();
  }
};

TEST_F(Userfaultfd, process_goes_on_when_who_takes_it_is_killed) {
  Child child([] {
    while (shared->go.load() == 0) {
      if (::usleep(50) != 0 && errno != EINTR) shared->errors.fetch_add(1);
      shared->rounds.fetch_add(1);
    }
  });
  child.WaitUntilBegun();
  const size_t open_fds = child.open_fds();
  for (int kill = 0; kill < 60; ++kill) {
    const pid_t taker = ::fork();
    if (taker == 0) {
      // Nearly all of its time it is at it.
      for (;;) TakeUserfaultfd(child.pid()).IgnoreError();
    }
    std::this_thread::sleep_for(1ms + 37us * kill);
    ::kill(taker, SIGKILL);
    ASSERT_EQ(::waitpid(taker, nullptr, 0), taker);
    const uint64_t rounds = shared->rounds.load();
    while (shared->rounds.load() == rounds) {
      ASSERT_EQ(::waitpid(child.pid(), nullptr, WNOHANG), 0) << "it died of kill " << kill;
      std::this_thread::sleep_for(1ms);
    }
  }
  // What a killed one left may still be at its work, and there is one tracer at a time.
  auto last = TakeUserfaultfd(child.pid());
  for (int tries = 0; !last.ok() && tries < 1000; ++tries) {
    std::this_thread::sleep_for(10ms);
    last = TakeUserfaultfd(child.pid());
  }
  EXPECT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(child.open_fds(), open_fds);
  EXPECT_TRUE(Ended(child.End()));
  EXPECT_EQ(shared->errors.load(), 0U);
}

TEST_F(Userfaultfd, is_one_of_the_other_process_and_ours_alone) {
  Child child([] {
    while (shared->go.load() == 0) ::usleep(500);
  });
  child.WaitUntilBegun();
  const size_t before = child.open_fds();
  const auto fd = TakeUserfaultfd(child.pid());
  ASSERT_TRUE(fd.ok()) << fd.status();
  uffdio_api api{.api = UFFD_API};
  EXPECT_EQ(::ioctl(fd->get(), UFFDIO_API, &api), 0);
  EXPECT_EQ(child.open_fds(), before);
  EXPECT_TRUE(Ended(child.End()));
}

// The counter must go on by exactly one a round, and no system call may say EINTR or give up early.
TEST_F(Userfaultfd, computing_thread_keeps_every_register) {
  Child child([] {
    uint64_t a = 1;
    uint64_t b = 0;
    for (uint64_t i = 1; shared->go.load(std::memory_order_relaxed) == 0; ++i) {
      a = a * 6364136223846793005 + 1442695040888963407;
      b = b * 6364136223846793005 + a - 1442695040888963407 * i;
      uint64_t c = a;
      __asm__ volatile("" : "+r"(c));
      if (c != a || shared->rounds.fetch_add(1) != i) shared->errors.fetch_add(1);
    }
    __asm__ volatile("" : : "r"(b));
  });
  child.WaitUntilBegun();
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(TakeUserfaultfd(child.pid()).ok());
  const uint64_t then = shared->rounds.load();
  while (shared->rounds.load() == then) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(shared->errors.load(), 0u);
  EXPECT_TRUE(Ended(child.End()));
}

TEST_F(Userfaultfd, blocked_ppoll_goes_on_to_its_own_end) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  Child child([&] {
    pollfd waiting{.fd = reader.get(), .events = POLLIN};
    if (::ppoll(&waiting, 1, nullptr, nullptr) != 1) shared->errors.fetch_add(1);
    // With a timeout it must neither return early nor with EINTR.
    waiting.fd = -1;
    const timespec wait{.tv_sec = 0, .tv_nsec = 100'000'000};
    const auto before = std::chrono::steady_clock::now();
    shared->rounds.fetch_add(1);
    if (::ppoll(&waiting, 1, &wait, nullptr) != 0 ||
        std::chrono::steady_clock::now() - before < 100ms) {
      shared->errors.fetch_add(1);
    }
  });
  child.WaitUntilBegun();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(TakeUserfaultfd(child.pid()).ok());
  EXPECT_EQ(shared->rounds.load(), 1u);
  ASSERT_EQ(::write(writer.get(), "x", 1), 1);
  while (shared->rounds.load() < 2) std::this_thread::sleep_for(1ms);
  for (int i = 0; i < 20; ++i) static_cast<void>(TakeUserfaultfd(child.pid()));
  EXPECT_TRUE(Ended(child.End()));
}

TEST_F(Userfaultfd, blocked_read_gets_its_bytes) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  Child child([&] {
    char byte = 0;
    while (shared->go.load() == 0) {
      if (::read(reader.get(), &byte, 1) != 1) shared->errors.fetch_add(1);
      if (byte != static_cast<char>(shared->rounds.fetch_add(1))) shared->errors.fetch_add(1);
    }
  });
  child.WaitUntilBegun();
  for (int i = 1; i < 50; ++i) {
    ASSERT_TRUE(TakeUserfaultfd(child.pid()).ok());
    const char byte = static_cast<char>(i);
    if (i == 49) shared->go.store(1);
    ASSERT_EQ(::write(writer.get(), &byte, 1), 1);
  }
  EXPECT_TRUE(Ended(child.End()));
}

TEST_F(Userfaultfd, sleep_is_not_cut_short) {
  Child child([] {
    while (shared->go.load() == 0) {
      const timespec nap{.tv_sec = 0, .tv_nsec = 5'000'000};
      const auto before = std::chrono::steady_clock::now();
      if (::nanosleep(&nap, nullptr) != 0 || std::chrono::steady_clock::now() - before < 5ms) {
        shared->errors.fetch_add(1);
      }
      shared->rounds.fetch_add(1);
    }
  });
  child.WaitUntilBegun();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(TakeUserfaultfd(child.pid()).ok());
  const Shared* at = shared;
  shared->go.store(1);
  while (at->rounds.load() < 2) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(at->errors.load(), 0u);
  EXPECT_TRUE(Ended(child.End()));
}

TEST_F(Userfaultfd, signals_are_neither_lost_nor_in_the_way) {
  Child child([] {
    while (shared->go.load() == 0) {
      ::usleep(100);
      shared->rounds.fetch_add(1);
    }
  });
  child.WaitUntilBegun();
  const size_t before = child.open_fds();
  // One signal at a time: those of one number that are pending together are one.
  std::atomic<bool> done{false};
  uint64_t sent = 0;
  std::thread sender([&] {
    while (!done.load()) {
      ::kill(child.pid(), SIGUSR1);
      ++sent;
      while (shared->signals.load() < sent && !done.load()) std::this_thread::yield();
    }
  });
  for (int i = 0; i < 300; ++i) {
    const auto fd = TakeUserfaultfd(child.pid());
    EXPECT_TRUE(fd.ok()) << fd.status();
  }
  done.store(true);
  sender.join();
  while (shared->signals.load() < sent) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(shared->signals.load(), sent);
  EXPECT_EQ(child.open_fds(), before);
  EXPECT_TRUE(Ended(child.End()));
}

TEST_F(Userfaultfd, other_threads_never_stop) {
  Child child(
      [] {
        while (shared->go.load() == 0) ::usleep(200);
      },
      /*second_thread=*/true);
  child.WaitUntilBegun();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(TakeUserfaultfd(child.pid()).ok());
  const uint64_t then = shared->other.load();
  while (shared->other.load() == then) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(Ended(child.End()));
}

TEST_F(Userfaultfd, stopped_process_stays_stopped) {
  Child child([] {
    while (shared->go.load() == 0) {
      ::usleep(100);
      shared->rounds.fetch_add(1);
    }
  });
  child.WaitUntilBegun();
  ASSERT_EQ(::kill(child.pid(), SIGSTOP), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child.pid(), &status, WUNTRACED), child.pid());
  const auto fd = TakeUserfaultfd(child.pid());
  EXPECT_TRUE(fd.ok()) << fd.status();
  const uint64_t then = shared->rounds.load();
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(shared->rounds.load(), then);
  ASSERT_EQ(::kill(child.pid(), SIGCONT), 0);
  while (shared->rounds.load() == then) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(Ended(child.End()));
}

TEST_F(Userfaultfd, process_under_a_debugger_is_refused_and_goes_on) {
  Child child([] {
    while (shared->go.load() == 0) {
      ::usleep(100);
      shared->rounds.fetch_add(1);
    }
  });
  child.WaitUntilBegun();
  const pid_t debugger = ::fork();
  if (debugger == 0) {
    if (::ptrace(PTRACE_SEIZE, child.pid(), 0, 0) != 0) ::_exit(1);
    shared->signals.store(1);
    for (;;) ::pause();
  }
  while (shared->signals.load() == 0) std::this_thread::sleep_for(1ms);
  const auto fd = TakeUserfaultfd(child.pid());
  EXPECT_TRUE(absl::IsPermissionDenied(fd.status())) << fd.status();
  ::kill(debugger, SIGKILL);
  ::waitpid(debugger, nullptr, 0);
  EXPECT_TRUE(TakeUserfaultfd(child.pid()).ok());
  EXPECT_TRUE(Ended(child.End()));
}

TEST(UserfaultfdOfNobody, is_an_error) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(0);
  ::waitpid(pid, nullptr, 0);
  EXPECT_FALSE(TakeUserfaultfd(pid).ok());
}

}  // namespace
}  // namespace ramferry
