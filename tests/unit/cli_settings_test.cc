// The configuration: one list of keys, read strictly, printed so that it can be read again.
#include <fstream>
#include <sstream>

#include "cli/host_address.h"
#include "cli/settings.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ramferry {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Settings, empty_file_is_the_defaults) {
  const auto settings = ParseSettings("", "t");
  ASSERT_TRUE(settings.ok());
  EXPECT_EQ(FormatSettings(*settings), FormatSettings(Settings{}));
  EXPECT_TRUE(CheckSettings(Settings{}).ok());
}

TEST(Settings, printed_settings_read_again_are_the_same) {
  Settings settings;
  settings.state_dir = "/a \"quoted\" \\ path\twith\nall\x01kinds\x7f of bytes \xc3\xa9";
  settings.data_encryption = "off";
  settings.guests = {"/one.toml", "two \"2\""};
  settings.allow = {"alpha"};
  settings.port = 0;
  settings.downtime_ms = 3600000;
  settings.if_not_converging = "stop";
  settings.verify = true;
  const auto again = ParseSettings(FormatSettings(settings), "t");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->state_dir, settings.state_dir);
  EXPECT_EQ(again->guests, settings.guests);
  EXPECT_EQ(again->port, 0);
  EXPECT_TRUE(again->verify);
  EXPECT_EQ(FormatSettings(*again), FormatSettings(settings));
}

TEST(Settings, shipped_configuration_is_exactly_the_defaults_and_names_every_key) {
  std::ifstream file(RAMFERRY_CONFIG_FILE);
  std::stringstream text;
  text << file.rdbuf();
  ASSERT_TRUE(file) << RAMFERRY_CONFIG_FILE;
  const auto settings = ParseSettings(text.str(), RAMFERRY_CONFIG_FILE);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(FormatSettings(*settings), FormatSettings(Settings{}));
  EXPECT_THAT(text.str(), HasSubstr(FormatSettings(Settings{})))
      << "the file is `ramferry config` below a comment";
}

TEST(Settings, every_mistake_is_named_with_what_is_allowed) {
  const std::pair<const char*, std::vector<const char*>> mistakes[] = {
      {"state_dir = ", {"site.toml", "line 1"}},
      {"\n[migrate]\nverify = yes", {"line 3"}},
      {"colour = 1", {"'colour'", "ramferry config"}},
      {"[migrate]\ncolour = 1", {"'migrate.colour'"}},
      {"[colours]\nred = 1", {"'colours.red'"}},
      {"downtime_ms = 1", {"'downtime_ms'"}},  // without its section
      {"state_dir = 7", {"state_dir", "a string"}},
      {"[migrate]\ndowntime_ms = \"300\"", {"migrate.downtime_ms", "a whole number"}},
      {"[migrate]\ndowntime_ms = 0.5", {"migrate.downtime_ms", "a whole number"}},
      {"[migrate]\nverify = 1", {"migrate.verify", "true or false"}},
      {"[receive]\nguests = \"a\"", {"receive.guests", "a list of strings"}},
      {"[receive]\nguests = [1]", {"receive.guests", "a list of strings"}},
      {"[migrate]\n[migrate.downtime_ms]\nx = 1", {"migrate.downtime_ms", "a whole number"}},
      {"[migrate]\ndowntime_ms = 0", {"migrate.downtime_ms is 0", "between 1 and 3600000"}},
      {"[migrate]\ndowntime_ms = 3600001", {"migrate.downtime_ms"}},
      {"[migrate]\nworkers = -1", {"migrate.workers is -1"}},
      {"[migrate]\nworkers = 65", {"0 and 64"}},
      {"[migrate]\nmax_rounds = 0", {"migrate.max_rounds"}},
      {"[migrate]\nbandwidth_mib = -5", {"migrate.bandwidth_mib"}},
      {"[receive]\nport = 65536", {"receive.port", "65535"}},
      {"[receive]\npage_port = -1", {"receive.page_port"}},
      {"[receive]\nmax_migrations = 0", {"receive.max_migrations"}},
      {"[data]\nencryption = \"maybe\"", {"data.encryption is 'maybe'", "auto, on, off"}},
      {"[data]\ntransport = \"pigeon\"", {"data.transport", "auto"}},
      {"[receive]\nallow = [\"alpha\", \"\"]", {"receive.allow", "empty"}},
      {"[data]\nrdma_address = \"beta\"", {"data.rdma_address is 'beta'", "numeric"}},
      {"[dpdk]\ndevice = \"x\"\naddress = \"10.0.0.1\"", {"dpdk.address", "192.0.2.7/24"}},
      {"[dpdk]\ndevice = \"x\"\naddress = \"10.0.0.1/\"", {"dpdk.address", "192.0.2.7/24"}},
      {"[dpdk]\ndevice = \"x\"\naddress = \"10.0.0.1/32\"", {"dpdk.address"}},
      {"[dpdk]\ndevice = \"x\"\naddress = \"beta/24\"", {"dpdk.address"}},
      {"[dpdk]\ngateway = \"beta\"", {"dpdk.gateway is 'beta'"}},
      {"[migrate]\nif_not_converging = \"\"",
       {"migrate.if_not_converging", "give-up, throttle, wait, stop"}},
  };
  for (const auto& [text, words] : mistakes) {
    const auto settings = ParseSettings(text, "site.toml");
    EXPECT_TRUE(absl::IsInvalidArgument(settings.status())) << text;
    EXPECT_THAT(settings.status().message(), HasSubstr("site.toml")) << text;
    for (const char* word : words) {
      EXPECT_THAT(settings.status().message(), HasSubstr(word)) << text;
    }
  }
}

TEST(Settings, limits_themselves_are_allowed) {
  for (const char* text :
       {"[migrate]\ndowntime_ms = 1", "[migrate]\ndowntime_ms = 3600000", "[migrate]\nworkers = 64",
        "[receive]\nport = 65535", "[receive]\nguests = []", "[migrate]\nsettle_s = 0",
        "[data]\nrdma_address = \"2001:db8::1\"",
        "[dpdk]\ndevice = \"x\"\naddress = \"10.0.0.1/31\"\ngateway = \"10.0.0.0\""}) {
    EXPECT_TRUE(ParseSettings(text, "t").ok()) << text;
  }
}

TEST(Settings, file_that_was_named_must_exist) {
  const auto settings = LoadSettings("/nonexistent/site.toml");
  EXPECT_TRUE(absl::IsNotFound(settings.status()));
  EXPECT_THAT(settings.status().message(), HasSubstr("/nonexistent/site.toml"));
}

// Taken for an empty file it would let every host send.
TEST(Settings, file_that_cannot_be_read_is_not_taken_for_an_empty_one) {
  const auto settings = LoadSettings("/proc");
  EXPECT_FALSE(settings.ok());
  EXPECT_THAT(settings.status().message(), HasSubstr("cannot read the configuration /proc"));
}

TEST(Settings, options_of_a_migration_are_what_was_set) {
  const auto settings = ParseSettings(
      "[data]\nencryption = \"on\"\n[migrate]\ndowntime_ms = 5\nmax_rounds = 6\n"
      "if_not_converging = \"stop\"\nworkers = 7\nbandwidth_mib = 8\nverify = true\nanswer_s = 9\n"
      "settle_s = 10\n",
      "t");
  ASSERT_TRUE(settings.ok());
  const MigrationOptions options = settings->migration_options();
  EXPECT_EQ(options.downtime_target.count(), 5);
  EXPECT_EQ(options.max_rounds, 6u);
  EXPECT_EQ(options.not_converging, NotConverging::kStopAnyway);
  EXPECT_EQ(options.workers, 7u);
  EXPECT_EQ(options.bandwidth, MiB(8));
  EXPECT_TRUE(options.verify);
  EXPECT_EQ(options.answer_time, std::chrono::seconds(9));
  EXPECT_EQ(options.settle_time, std::chrono::seconds(10));
  EXPECT_EQ(settings->encryption(), DataEncryption::kOn);
  EXPECT_EQ(Settings{}.encryption(), DataEncryption::kAuto);
  EXPECT_EQ(Settings{}.migration_options().not_converging, NotConverging::kGiveUp);
}

TEST(HostPort, every_way_to_write_it) {
  const std::tuple<const char*, const char*, int> good[] = {
      {"beta", "beta", 7711},
      {"beta:1", "beta", 1},
      {"192.0.2.2:65535", "192.0.2.2", 65535},
      {"[2001:db8::2]:99", "2001:db8::2", 99},
      {"[2001:db8::2]", "2001:db8::2", 7711},
      {"2001:db8::2", "2001:db8::2", 7711},
      {"::1", "::1", 7711},
  };
  for (const auto& [text, host, port] : good) {
    const auto parsed = ParseHostPort(text, 7711);
    ASSERT_TRUE(parsed.ok()) << text << ": " << parsed.status();
    EXPECT_EQ(parsed->host, host) << text;
    EXPECT_EQ(parsed->port, port) << text;
  }
}

TEST(HostPort, what_is_none_is_named) {
  for (const char* text :
       {"", ":", ":1", "beta:", "beta:0", "beta:65536", "beta:x", "beta:1x", "beta:-1", "beta:+1",
        "beta: 1", "[::1", "[::1]1", "[::1]:", "[]:1", "[::1]:0"}) {
    const auto parsed = ParseHostPort(text, 7711);
    EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << text;
    EXPECT_THAT(parsed.status().message(), HasSubstr(text)) << text;
  }
}

TEST(HostPort, this_machine_is_known_and_others_are_not) {
  EXPECT_TRUE(IsThisMachine("127.0.0.1"));
  EXPECT_FALSE(IsThisMachine("192.0.2.77"));
  EXPECT_FALSE(IsThisMachine("no such name"));
}

}  // namespace
}  // namespace ramferry
