// The exit codes of the program itself for a wrong command line or configuration: 2, and a word
// why.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "fake_qmp_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/qemu/qemu_process.h"

namespace ramferry {
namespace {

using testing::AnyOf;
using testing::ContainsRegex;
using testing::HasSubstr;

class Program : public testing::Test {
 protected:
  struct Result {
    int code = -1;
    std::string output;
  };
  Result Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), RAMFERRY_PROGRAM);
    const std::string log = directory_.File("output");
    const auto process = QemuProcess::Start(arguments, log);
    EXPECT_TRUE(process.ok()) << process.status();
    int status = 0;
    ::waitpid((*process)->pid(), &status, 0);
    std::ifstream file(log);
    std::stringstream text;
    text << file.rdbuf();
    return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1, .output = text.str()};
  }
  std::string Definition(const std::string& name) {
    const std::string file = directory_.File(name + ".toml");
    std::ofstream(file) << "name = \"" << name << "\"\nargv = [\"true\"]\n";
    return file;
  }
  std::string Config(const std::string& text) {
    std::ofstream(directory_.File("site.toml")) << text;
    return directory_.File("site.toml");
  }
  TestDirectory directory_;
};

TEST_F(Program, a_xen_domain_outside_a_dom0_is_refused_in_one_line) {
  if (::access("/dev/xen/privcmd", F_OK) == 0) GTEST_SKIP() << "this may be a dom0";
  const Result checked = Run({"check", "xen:web1"});
  EXPECT_EQ(checked.code, 3) << checked.output;
  EXPECT_THAT(checked.output, AnyOf(ContainsRegex("PROBLEM  guest +this is no Xen dom0 [^\n]*\n"),
                                    HasSubstr("built without Xen")));
  const Result receiving = Run({"receive", "--xen"});
  EXPECT_EQ(receiving.code, 1) << receiving.output;
  EXPECT_THAT(receiving.output,
              AnyOf(HasSubstr("this is no Xen dom0"), HasSubstr("built without Xen")));
  EXPECT_EQ(std::count(receiving.output.begin(), receiving.output.end(), '\n'), 1);
}

TEST_F(Program, wrong_command_line_is_2) {
  const std::vector<std::string> wrong[] = {
      {},
      {"fly"},
      {"migrate"},
      {"migrate", "qemu:/x"},
      {"migrate", "qemu:/x", "beta", "third"},
      {"migrate", "qemu:/x", "beta", "--colour", "red"},
      {"migrate", "qemu:/x", "beta", "--downtime", "soon"},
      {"migrate", "qemu:/x", "beta", "--downtime", "0"},
      {"migrate", "qemu:/x", "beta", "--workers", "65"},
      {"migrate", "qemu:/x", "beta", "--if-not-converging", "panic"},
      {"migrate", "qemu:/x", "beta", "--data-encryption", "rot13"},
      {"migrate", "qemu:/x", "beta", "--cpus", "one"},
      {"receive", "--port", "70000"},
      {"receive", "--numa-map", "0-1"},
      {"topology", "--cpus", "65000"},
      {"wws"},
      {"wws", "qemu:/x", "--seconds", "1"},
      {"wws", "qemu:/x", "--seconds", "long"},
      {"predict"},
      {"predict", "qemu:/x", "--synthetic", "memory=1G,working-set=1G,rate=1"},
      {"predict", "--synthetic", "memory=1G"},
      {"predict", "--synthetic", "memory=1G,working-set=1G,rate=1", "--link", "0"},
      {"predict", "--synthetic", "memory=1G,working-set=1G,rate=1", "--bandwidth", "-1"},
      {"predict", "--synthetic", "memory=1G,working-set=1G,rate=1", "--max-rounds", "0"},
      {"predict", "--trace", Config("{}")},
      {"resolve"},
      {"resolve", "0b7c", "--run-here", "--discard-here"},
      {"certs"},
      {"demo", "--memory-mib", "1"},
      {"--config", directory_.File("missing.toml"), "config"},
      {"--config", directory_.File(""), "config"},
      {"migrate", "qemu:", "beta"},
      {"migrate", "qemu:/x", "beta", "--rdma-address", "beta"},
      {"receive", "--qmp", "/x", "--allow", ""},
      {"receive", "--qmp", "/x", "--numa-map", "0:4000"},
      {"receive", "--guest", Definition("web1"), "--guest", Definition("web1")},
      {"--config", Config("[migrate]\ndowntime_ms = \"x\"\n"), "config"},
  };
  for (const auto& arguments : wrong) {
    const Result result = Run(arguments);
    EXPECT_EQ(result.code, 2) << testing::PrintToString(arguments) << result.output;
    EXPECT_FALSE(result.output.empty()) << testing::PrintToString(arguments);
  }
}

// Whoever reads its messages may be gone, or its disk full: the exit code is what it was.
TEST_F(Program, messages_that_go_nowhere_change_nothing) {
  std::vector<std::string> arguments = {RAMFERRY_PROGRAM, "resolve", "0b7c", "--state-dir",
                                        directory_.File("state")};
  const auto process = QemuProcess::Start(arguments, "/dev/full");
  ASSERT_TRUE(process.ok()) << process.status();
  int status = 0;
  ::waitpid((*process)->pid(), &status, 0);
  EXPECT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

TEST_F(Program, help_and_version_are_0) {
  EXPECT_EQ(Run({"--help"}).code, 0);
  EXPECT_THAT(Run({"--help"}).output, HasSubstr("Exit codes"));
  EXPECT_EQ(Run({"migrate", "--help"}).code, 0);
  EXPECT_THAT(Run({"--version"}).output, HasSubstr("ramferry "));
}

TEST_F(Program, configuration_in_force_is_printed_so_that_it_can_be_read_again) {
  const std::string file = Config("[migrate]\ndowntime_ms = 77\n");
  const Result printed = Run({"-c", file, "config"});
  EXPECT_EQ(printed.code, 0);
  EXPECT_THAT(printed.output, HasSubstr("downtime_ms = 77\n"));
  EXPECT_EQ(Run({"-c", Config(printed.output), "config"}).output, printed.output);
}

TEST_F(Program, guest_that_is_not_there_is_1) {
  const Result result = Run({"migrate", "qemu:" + directory_.File("no.qmp"), "localhost",
                             "--state-dir", directory_.File("state")});
  EXPECT_EQ(result.code, 1) << result.output;
}

TEST_F(Program, host_without_migrations_has_nothing_to_resolve) {
  const std::string state = directory_.File("state");
  EXPECT_EQ(Run({"status", "--state-dir", state}).code, 0);
  const Result result = Run({"resolve", "0b7c", "--state-dir", state});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.output, HasSubstr("0b7c"));
}

}  // namespace
}  // namespace ramferry
