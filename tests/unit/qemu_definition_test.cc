// Guest definitions, and the QEMUs that are started from them.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>

#include "base/process_identity.h"
#include "fake_qmp_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/qemu/guest_definition.h"
#include "hypervisor-glue/qemu/qemu_process.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(GuestDefinition, all_keys_are_read) {
  const auto definition = ParseGuestDefinition(
      "name = \"web1\"\nargv = [\"qemu\", \"-m\", \"2G\"]\nlog = \"/l\"\nqmp = \"/q\"\n", "t");
  ASSERT_TRUE(definition.ok()) << definition.status();
  EXPECT_EQ(definition->name, "web1");
  EXPECT_THAT(definition->argv, ElementsAre("qemu", "-m", "2G"));
  EXPECT_EQ(definition->log, "/l");
  EXPECT_EQ(definition->qmp, "/q");
}

TEST(GuestDefinition, every_mistake_is_named) {
  const std::string argv = "argv = [\"qemu\"]\n";
  const std::pair<std::string, const char*> mistakes[] = {
      {"name = ", "line 1"},
      {argv, "name is missing"},
      {"name = \"\"\n" + argv, "name is missing"},
      {"name = 7\n" + argv, "name must be a string"},
      {"name = \"a/b\"\n" + argv, "'/'"},
      {"name = \"a\\nb\"\n" + argv, "name must"},
      {"name = \"" + std::string(65, 'x') + "\"\n" + argv, "64 characters"},
      {"name = \"a\"", "argv is missing"},
      {"name = \"a\"\nargv = []", "argv is missing"},
      {"name = \"a\"\nargv = \"qemu -m 1\"", "list of strings"},
      {"name = \"a\"\nargv = [\"qemu\", 7]", "list of strings"},
      {"name = \"a\"\nlog = 1\n" + argv, "log must be a string"},
      {"name = \"a\"\nqmp = [\"x\"]\n" + argv, "qmp must be a string"},
      {"name = \"a\"\nqmp = \"a.qmp\"\n" + argv, "must begin with '/'"},
      {"name = \"a\"\nmemory = \"2G\"\n" + argv, "'memory'"},
      {"name = \"a\"\nargv = [\"qemu\", \"-incoming\", \"defer\"]", "-incoming"},
      {"name = \"a\"\nargv = [\"qemu\", \"-S\"]", "-S"},
      {"name = \"a\"\nargv = [\"qemu\", \"-daemonize\"]", "-daemonize"},
      {"name = \"a\"\nargv = [\"qemu\", \"--incoming\", \"defer\"]", "--incoming"},
  };
  for (const auto& [text, word] : mistakes) {
    const auto definition = ParseGuestDefinition(text, "web1.toml");
    EXPECT_TRUE(absl::IsInvalidArgument(definition.status())) << text;
    EXPECT_THAT(definition.status().message(), HasSubstr("web1.toml")) << text;
    EXPECT_THAT(definition.status().message(), HasSubstr(word)) << text;
  }
}

TEST(GuestDefinition, file_that_cannot_be_read_is_named) {
  const auto definition = LoadGuestDefinition("/nonexistent/web1.toml");
  EXPECT_TRUE(absl::IsNotFound(definition.status())) << definition.status();
  EXPECT_THAT(definition.status().message(), HasSubstr("/nonexistent/web1.toml"));
}

TEST(QemuProcess, program_that_does_not_exist_is_named) {
  TestDirectory directory;
  const auto process = QemuProcess::Start({"no-such-qemu"}, directory.File("log"));
  EXPECT_THAT(process.status().message(), HasSubstr("no-such-qemu"));
  const auto no_log = QemuProcess::Start({"true"}, directory.File("no/such/log"));
  EXPECT_THAT(no_log.status().message(), HasSubstr("no/such/log"));
}

void WaitUntilEnded(const QemuProcess& process) {
  while (!process.ended()) std::this_thread::sleep_for(1ms);
}

TEST(QemuProcess, last_words_of_one_that_ended_are_kept) {
  TestDirectory directory;
  const auto process = QemuProcess::Start(
      {"sh", "-c", "seq 100000; echo no such machine >&2; echo; exit 1"}, directory.File("log"));
  ASSERT_TRUE(process.ok()) << process.status();
  WaitUntilEnded(**process);
  const std::string tail = (*process)->LogTail();
  EXPECT_TRUE(tail.ends_with("100000\nno such machine")) << tail;
  EXPECT_LE(tail.size(), 600u);
  (*process)->Kill();
}

TEST(QemuProcess, one_that_said_nothing_is_said_to) {
  TestDirectory directory;
  const auto process = QemuProcess::Start({"true"}, directory.File("log"));
  ASSERT_TRUE(process.ok());
  WaitUntilEnded(**process);
  EXPECT_EQ((*process)->LogTail(), "(it printed nothing)");
  (*process)->Kill();
}

// So that it can be written down before it does anything.
TEST(QemuProcess, nothing_runs_until_it_is_let_go_and_then_under_the_same_number) {
  TestDirectory directory;
  const auto process = QemuProcess::Prepare({"sh", "-c", "echo $$"}, directory.File("log"));
  ASSERT_TRUE(process.ok()) << process.status();
  const pid_t pid = (*process)->pid();
  const ProcessIdentity before = IdentityOf(pid);
  EXPECT_TRUE(Lives(before));
  EXPECT_EQ((*process)->LogTail(), "(it printed nothing)");
  ASSERT_TRUE((*process)->Go().ok());
  WaitUntilEnded(**process);
  EXPECT_EQ((*process)->LogTail(), std::to_string(pid));
  (*process)->Kill();
}

// As when a ramferry is killed that was about to write it down.
TEST(QemuProcess, one_that_nobody_lets_go_ends_with_its_maker) {
  TestDirectory directory;
  int pids[2];
  ASSERT_EQ(::pipe(pids), 0);
  const pid_t maker = ::fork();
  if (maker == 0) {
    const auto process =
        QemuProcess::Prepare({"touch", directory.File("ran")}, directory.File("log"));
    const pid_t pid = process.ok() ? (*process)->pid() : 0;
    if (::write(pids[1], &pid, sizeof pid) != sizeof pid) ::_exit(1);
    ::kill(::getpid(), SIGKILL);
  }
  pid_t pid = 0;
  ASSERT_EQ(::read(pids[0], &pid, sizeof pid), static_cast<ssize_t>(sizeof pid));
  ASSERT_GT(pid, 0);
  ::waitpid(maker, nullptr, 0);
  while (IdentityOf(pid).pid != 0) std::this_thread::sleep_for(1ms);
  EXPECT_NE(::access(directory.File("ran").c_str(), F_OK), 0);
}

TEST(QemuProcess, killed_one_is_gone_and_reaped) {
  TestDirectory directory;
  const auto process = QemuProcess::Start({"sleep", "1000"}, directory.File("log"));
  ASSERT_TRUE(process.ok());
  const pid_t pid = (*process)->pid();
  EXPECT_FALSE((*process)->ended());
  EXPECT_EQ(::getsid(pid), pid);  // not of our session: a Ctrl-C here does not reach it
  (*process)->Kill();
  EXPECT_EQ(::kill(pid, 0), -1);
  (*process)->Kill();
}

}  // namespace
}  // namespace ramferry
