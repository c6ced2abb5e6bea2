// A process is known again, and never mistaken for another.
#include "base/process_identity.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "gtest/gtest.h"
#include "tests/unit/no_descriptors.h"

namespace ramferry {
namespace {

TEST(ProcessIdentity, this_process_lives) {
  const ProcessIdentity self = IdentityOf(::getpid());
  EXPECT_EQ(self.pid, ::getpid());
  EXPECT_GT(self.started, 0);
  EXPECT_TRUE(Lives(self));
}

TEST(ProcessIdentity, another_process_with_the_same_number_is_another) {
  ProcessIdentity earlier = IdentityOf(::getpid());
  earlier.started -= 1;
  EXPECT_FALSE(Lives(earlier));
  ProcessIdentity before_reboot = IdentityOf(::getpid());
  before_reboot.boot_id = "another boot";
  EXPECT_FALSE(Lives(before_reboot));
}

TEST(ProcessIdentity, a_process_that_nobody_has_waited_for_has_ended_all_the_same) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  const ProcessIdentity identity = IdentityOf(child);
  EXPECT_TRUE(Lives(identity));
  ::kill(child, SIGKILL);
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  EXPECT_FALSE(Lives(identity));
  EXPECT_EQ(IdentityOf(child), ProcessIdentity{});
  ::waitpid(child, nullptr, 0);
}

// Its guest would be given up, or its journal entry settled under its hands.
TEST(ProcessIdentity, a_process_that_cannot_be_looked_at_now_is_not_taken_for_a_dead_one) {
  const ProcessIdentity self = IdentityOf(::getpid());
  const NoDescriptors none;
  EXPECT_TRUE(Lives(self));
}

TEST(ProcessIdentity, nothing_is_no_process) {
  EXPECT_FALSE(Lives({}));
  EXPECT_EQ(IdentityOf(0), ProcessIdentity{});
  EXPECT_EQ(IdentityOf(-1), ProcessIdentity{});
}

}  // namespace
}  // namespace ramferry
