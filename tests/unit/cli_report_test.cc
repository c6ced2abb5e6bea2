// Reports: what docs/operating.md promises is there, and adds up for a person.
#include <set>

#include "cli/report_json.h"
#include "cli/report_text.h"
#include "engine/report.h"
#include "fake_qmp_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ramferry {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

MigrationReport Sample() {
  return {
      .outcome = Outcome::kMigrated,
      .stage = Stage::kDone,
      .migration_id = "0b7c",
      .guest = "web\"1\"",
      .destination = "beta:7711",
      .transport = "tcp",
      .paths = {"rxe0 port 1"},
      .port_counters = {{"frames_sent", 7}},
      .encrypted = true,
      .workers = 2,
      .placement = {{.cpus = "4",
                     .node = 1,
                     .memory_node = 1,
                     .nic = "mlx5_0",
                     .pages = PageCount(900),
                     .why = "beside its memory"}},
      .total_ms = 2345.6,
      .downtime_ms = 21,
      .downtime_parts = {1, 2, 3, 4, 5, 6},
      .predicted_downtime_ms = 20.5,
      .predicted_total_ms = 2400,
      .rounds = {{.number = 1,
                  .pages = PageCount(1000),
                  .zero_pages = PageCount(24),
                  .bytes = MiB(4),
                  .ms = 1000,
                  .dirty_pages = PageCount(77),
                  .dirty_rate = 77,
                  .predicted_downtime_ms = 31.5,
                  .predicted_rest_ms = 65000},
                 {.number = 2, .stopped = true, .pages = PageCount(78), .bytes = MiB(1), .ms = 2}},
      .bytes_sent = MiB(5),
      .device_state_bytes = KiB(350),
      .guest_pages = PageCount(16384),
      .cpu_seconds = 1.25,
      .verified = true};
}

TEST(ReportJson, has_every_field_with_its_type) {
  const json report = json::parse(ToJson(Sample()));
  std::set<std::string> keys;
  for (const auto& [key, value] : report.items()) keys.insert(key);
  EXPECT_EQ(keys, (std::set<std::string>{"outcome",
                                         "stage",
                                         "error",
                                         "migration_id",
                                         "guest",
                                         "destination",
                                         "transport",
                                         "paths",
                                         "port",
                                         "encrypted",
                                         "workers",
                                         "placement",
                                         "total_ms",
                                         "downtime_ms",
                                         "downtime_parts",
                                         "predicted_downtime_ms",
                                         "rounds",
                                         "bytes_sent",
                                         "device_state_bytes",
                                         "guest_bytes",
                                         "cpu_seconds",
                                         "cpu_seconds_per_gb",
                                         "verified",
                                         "predicted_total_ms"}));
  EXPECT_DOUBLE_EQ(report["predicted_total_ms"], 2400);
  EXPECT_EQ(report["paths"], json::array({"rxe0 port 1"}));
  EXPECT_EQ(report["port"], json({{"frames_sent", 7}}));
  EXPECT_DOUBLE_EQ(report["cpu_seconds_per_gb"], 1.25e9 / (5 << 20));
  EXPECT_EQ(report["placement"][0]["cpus"], "4");
  EXPECT_EQ(report["placement"][0]["memory_node"], 1);
  EXPECT_EQ(report["placement"][0]["nic"], "mlx5_0");
  EXPECT_EQ(report["outcome"], "migrated");
  EXPECT_EQ(report["stage"], "done");
  EXPECT_EQ(report["error"], "");
  EXPECT_EQ(report["guest"], "web\"1\"");
  EXPECT_EQ(report["encrypted"], true);
  EXPECT_EQ(report["workers"], 2);
  EXPECT_EQ(report["bytes_sent"], 5 << 20);
  EXPECT_EQ(report["guest_bytes"], 64 << 20);
  EXPECT_EQ(report["verified"], true);
  double sum = 0;
  for (const char* part : {"pause", "last_pages", "device_state", "verify", "commit", "resume"}) {
    sum += report["downtime_parts"].at(part).get<double>();
  }
  EXPECT_EQ(sum, report["downtime_ms"]);
  EXPECT_EQ(report["downtime_parts"].size(), 6u);
}

TEST(ReportJson, has_every_field_of_a_round) {
  const json rounds = json::parse(ToJson(Sample()))["rounds"];
  ASSERT_EQ(rounds.size(), 2u);
  EXPECT_EQ(rounds[0], json({{"number", 1},
                             {"stopped", false},
                             {"pages", 1000},
                             {"zero_pages", 24},
                             {"bytes", 4 << 20},
                             {"ms", 1000.0},
                             {"quiesced_ms", 0.0},
                             {"idle_ms", 0.0},
                             {"skipped_pages", 0},
                             {"dirty_pages", 77},
                             {"held_pages", 0},
                             {"rate_limit", 0},
                             {"cpu_share", 1.0},
                             {"dirty_rate", 77.0},
                             {"predicted_downtime_ms", 31.5},
                             {"predicted_rest_ms", 65000.0}}));
  EXPECT_EQ(rounds[1]["stopped"], true);
}

TEST(ReportJson, names_of_any_bytes_are_still_json) {
  MigrationReport report = Sample();
  report.error = "QEMU said \xff\xfe";
  EXPECT_TRUE(json::accept(ToJson(report)));
  EXPECT_TRUE(json::accept(ToJson(MigrationReport{})));
}

TEST(ReportJson, all_outcomes_have_names) {
  EXPECT_STREQ(NameOf(Outcome::kMigrated), "migrated");
  EXPECT_STREQ(NameOf(Outcome::kRolledBack), "rolled-back");
  EXPECT_STREQ(NameOf(Outcome::kInDoubt), "in-doubt");
}

TEST(ReportJson, file_that_cannot_be_written_is_named) {
  TestDirectory directory;
  EXPECT_TRUE(WriteJson(Sample(), directory.File("report.json")).ok());
  EXPECT_TRUE(std::filesystem::file_size(directory.File("report.json")) > 0);
  EXPECT_THAT(WriteJson(Sample(), directory.File("no/report.json")).message(),
              HasSubstr("no/report.json"));
}

TEST(ReportText, shows_rounds_and_the_downtime_by_cause) {
  const std::string text = FormatReport(Sample());
  for (const char* words :
       {"round", "stop", "1000", "31.5", "downtime 21.0 ms (predicted 20.5)", "pause 1.0",
        "last pages 2.0", "device state 3.0", "verify 4.0", "commit 5.0", "resume 6.0",
        "total 2.35 s", "5.0 MiB", "64.0 MiB", "350 KiB", "encrypted", "equal",
        "worker 0: CPU 4 of node 1, memory of node 1, mlx5_0, 900 pages (beside its memory)"}) {
    EXPECT_THAT(text, HasSubstr(words));
  }
}

TEST(ReportText, of_a_migration_that_failed_claims_no_downtime) {
  MigrationReport report;
  report.error = "the other host is gone";
  EXPECT_THAT(FormatReport(report), Not(HasSubstr("downtime")));
  EXPECT_THAT(FormatReport(report), HasSubstr("no transport"));
}

TEST(ReportText, a_round_says_how_long_the_rest_takes) {
  RoundReport round = Sample().rounds[0];
  EXPECT_THAT(FormatRound(round), HasSubstr(", about 65.0 s to go"));
  round.predicted_rest_ms = 7.5e6;
  EXPECT_THAT(FormatRound(round), HasSubstr(", about 2 h 5 min to go"));
  round.predicted_rest_ms = 0;  // no end in sight: 77 pages at 4 MiB a second
  EXPECT_THAT(FormatRound(round), HasSubstr(", next round about 0.1 s"));
}

TEST(ReportText, a_round_under_way_says_how_far_it_is_and_when_it_ends) {
  EXPECT_EQ(FormatProgress({.number = 3, .pages = PageCount(25600), .ms = 10000, .done = 0.25}),
            "round 3: 25 %, 25600 pages, 10 MiB/s, about 30.0 s to its end");
  EXPECT_EQ(FormatProgress({.number = 1}), "round 1: 0 %, 0 pages, 0 MiB/s");
}

TEST(ReportText, round_in_no_time_has_no_infinite_rate) {
  EXPECT_THAT(FormatRound({.number = 1, .bytes = MiB(1)}), HasSubstr(" 0 MiB/s"));
  EXPECT_THAT(FormatRound({.number = 9, .stopped = true, .pages = PageCount(5), .ms = 1.5}),
              HasSubstr("stop-and-copy: 5 pages in 1.5 ms"));
}

}  // namespace
}  // namespace ramferry
