// Rights: as docs/security.md lists them, so `ramferry check` judges them.
#include <linux/capability.h>
#include <unistd.h>

#include "base/status.h"
#include "cli/rights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ramferry {
namespace {

using testing::HasSubstr;

constexpr uint64_t Bit(int capability) {
  return uint64_t{1} << capability;
}
constexpr uint64_t kRestore = Bit(CAP_CHECKPOINT_RESTORE);
constexpr uint64_t kPtrace = Bit(CAP_SYS_PTRACE);
constexpr uint64_t kRead = Bit(CAP_DAC_READ_SEARCH);

TEST(Rights, root_has_them_all) {
  const RightsFinding finding = JudgeRights({.root = true, .capabilities = ~uint64_t{0}});
  EXPECT_TRUE(finding.status.ok());
  EXPECT_EQ(finding.good, "root");
  EXPECT_EQ(finding.limit, "");
}

TEST(Rights, a_user_without_capabilities_is_told_which_to_get) {
  const RightsFinding finding = JudgeRights({});
  EXPECT_TRUE(absl::IsPermissionDenied(finding.status));
  EXPECT_THAT(Message(finding.status), HasSubstr("CAP_CHECKPOINT_RESTORE"));
  // In a container root may have next to none.
  EXPECT_FALSE(JudgeRights({.root = true}).status.ok());
}

TEST(Rights, one_capability_is_enough_for_the_users_own_guests) {
  const RightsFinding finding = JudgeRights({.capabilities = kRestore});
  EXPECT_TRUE(finding.status.ok());
  EXPECT_THAT(finding.limit, HasSubstr("only guests whose QEMU runs as this user"));
  EXPECT_EQ(JudgeRights({.capabilities = kRestore | kPtrace | kRead}).limit, "");
  EXPECT_NE(JudgeRights({.capabilities = kRestore | kPtrace}).limit, "");
}

TEST(Rights, yama_takes_some_away) {
  const RightsFinding finding = JudgeRights({.capabilities = kRestore, .ptrace_scope = 1});
  EXPECT_TRUE(finding.status.ok());
  EXPECT_THAT(finding.limit, HasSubstr("can only come here"));
  EXPECT_EQ(JudgeRights({.capabilities = kRestore | kPtrace | kRead, .ptrace_scope = 2}).limit, "");
  const RightsFinding none =
      JudgeRights({.root = true, .capabilities = ~uint64_t{0}, .ptrace_scope = 3});
  EXPECT_THAT(Message(none.status), HasSubstr("ptrace_scope is 3"));
}

TEST(Rights, those_of_this_process_are_read) {
  const auto rights = OwnRights();
  ASSERT_TRUE(rights.ok()) << rights.status();
  EXPECT_EQ(rights->root, ::geteuid() == 0);
  if (!rights->root) EXPECT_EQ(rights->capabilities & Bit(CAP_SYS_MODULE), 0U);
}

}  // namespace
}  // namespace ramferry
