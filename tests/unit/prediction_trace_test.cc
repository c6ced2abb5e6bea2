// Dirty traces: what is written is read again, and what is wrong in a file is told by its field.
#include <cmath>

#include "engine/prediction/dirty_trace.h"
#include "engine/prediction/synthetic_trace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

using nlohmann::json;
using testing::HasSubstr;

DirtyTrace Sample() {
  return {
      .guest = "web1",
      .origin = "by hand",
      .intervals_ms = {10, 100, 1000},
      .blocks = {1, 2, 3},
      .zones = {{.memory = PageCount(1000), .contents = PageCount(900), .written = {5, 40, 200}},
                {.memory = PageCount(500), .contents = PageCount(0), .written = {0, 0, 1.5}}},
      .activity = {{.ms = 100, .busy = 2}, {.ms = 100, .busy = 0}},
      .timeline = {{.start_ms = 0, .share = 0.0625, .samples = {{10, 5}, {100, 41}}},
                   {.start_ms = 1000, .share = 1, .samples = {}}},
      .hottest = {{.region = "ram0", .first_page = 512, .pages = 512, .written = 17.5}}};
}

TEST(DirtyTrace, what_is_written_is_read_again) {
  const std::string text = FormatDirtyTrace(Sample());
  const auto read = ParseDirtyTrace(text);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(FormatDirtyTrace(*read), text);
  EXPECT_EQ(read->memory(), PageCount(1500));
  EXPECT_EQ(read->contents(), PageCount(900));
  EXPECT_DOUBLE_EQ(read->WrittenIn(2), 201.5);
}

TEST(DirtyTrace, names_that_are_no_utf8_are_written_all_the_same) {
  DirtyTrace trace = Sample();
  trace.guest = "web\xff";
  EXPECT_TRUE(ParseDirtyTrace(FormatDirtyTrace(trace)).ok());
}

TEST(DirtyTrace, wrong_files_are_refused_with_the_field_that_is_wrong) {
  struct Case {
    const char* pointer;  // what is changed
    json value;
    const char* told;
  };
  const json kNone;  // null: also what a missing field would be
  const Case cases[] = {
      {"/format", "another", "format must be \"ramferry dirty trace\""},
      {"/format", kNone, "format must be"},
      {"/version", 2, "version must be 1"},
      {"/version", "1", "version must be 1"},
      {"/page_bytes", 16384, "page_bytes must be 4096"},
      {"/page_bytes", -1, "page_bytes must be"},
      {"/guest", 7, "guest must be a string"},
      {"/origin", kNone, "origin must be a string"},
      {"/intervals_ms", json::array(), "intervals_ms must be a list of 1 to 64 entries"},
      {"/intervals_ms", json::array({10, 100, 90}), "intervals_ms must be ascending"},
      {"/intervals_ms", json::array({0, 100, 900}), "intervals_ms must be ascending"},
      {"/intervals_ms", json::array({10, "x", 900}), "intervals_ms[1] must be a number"},
      {"/intervals_ms", json::array({10, 100, 1e300}), "intervals_ms[2] must be between 0 and"},
      {"/intervals_ms", json::array({10, 100}), "blocks must be empty, or as long"},
      {"/blocks", json::array({1, 2, -3}), "blocks[2] must be between 0 and"},
      {"/zones", json::array(), "zones must be a list of 1 to 4096 entries"},
      {"/zones", json::array({7}), "zones[0] must be an object"},
      {"/zones/1/memory_pages", 0, "zones[1].memory_pages must be a whole number of pages, 1 to"},
      {"/zones/1/memory_pages", 1.5, "zones[1].memory_pages must be a whole number"},
      {"/zones/1/memory_pages", 1ULL << 50, "zones[1].memory_pages must be a whole number"},
      {"/zones/0/contents_pages", 1001, "zones[0].contents_pages must be a whole number of pages"},
      {"/zones/0/written", json::array({1, 2}), "zones[0].written must be a list of 3 to 3"},
      {"/zones/0/written", json::array({1, 2, 1001}), "zones[0].written[2] must be between 0 and"},
      {"/zones/0/written", json::array({2, 1, 3}), "zones[0].written must be a list that never"},
      {"/activity/0/ms", 0, "activity[0].ms must be between 1 and"},
      {"/activity/1/busy", -1, "activity[1].busy must be between 0 and"},
      {"/timeline", 3, "timeline must be a list"},
      {"/timeline/1/start_ms", -2, "timeline[1].start_ms must be between 0 and"},
      {"/timeline/0/share", 0, "timeline[0].share must be between"},
      {"/timeline/0/samples/1/ms", 10, "timeline[0].samples[1].ms must be later"},
      {"/timeline/0/samples/1/pages", kNone, "timeline[0].samples[1].pages must be a number"},
      {"/hottest/0/region", 1, "hottest[0].region must be a string"},
      {"/hottest/0/pages", 0, "hottest[0].pages must be a whole number"},
      {"/hottest/0/written", 513, "hottest[0].written must be between 0 and 512"},
  };
  const json good = json::parse(FormatDirtyTrace(Sample()));
  for (const Case& wrong : cases) {
    json object = good;
    object[json::json_pointer(wrong.pointer)] = wrong.value;
    const auto read = ParseDirtyTrace(object.dump());
    ASSERT_TRUE(absl::IsInvalidArgument(read.status())) << wrong.pointer;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(wrong.told));
  }
  // Every field is needed.
  for (const auto& [key, value] : good.items()) {
    json object = good;
    object.erase(key);
    const auto read = ParseDirtyTrace(object.dump());
    ASSERT_TRUE(absl::IsInvalidArgument(read.status())) << key;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(key));
  }
  for (const char* text : {"", "[]", "{", "7", "\"x\"", "{\"format\":\"ramferry dirty trace\"}"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseDirtyTrace(text).status())) << text;
  }
}

TEST(GrowthCurve, is_straight_between_its_points_and_bends_on_behind_them) {
  // Of 1000 pages, 100 a second at first: what is left decays by the same part each second.
  std::vector<GrowthPoint> points;
  const auto pages = [](double seconds) { return 1000 * -std::expm1(-seconds / 10); };
  for (double seconds = 0.5; seconds <= 8; seconds += 0.5) {
    points.push_back({seconds, pages(seconds)});
  }
  const double bend = GrowthCurve::BendOf(GrowthCurve(points, 2000, 1));
  const GrowthCurve curve(points, 2000, bend);
  EXPECT_EQ(curve.At(0), 0);
  EXPECT_EQ(curve.At(-1), 0);
  EXPECT_NEAR(curve.At(0.25), pages(0.5) / 2, 1e-9);
  for (const double seconds : {3.0, 8.0, 12.0, 30.0, 100.0}) {
    EXPECT_NEAR(curve.At(seconds), pages(seconds), 0.005 * pages(seconds)) << seconds;
  }
}

TEST(GrowthCurve, of_a_guest_that_finds_new_pages_all_the_time_goes_on_straight_up_to_all_memory) {
  const std::vector<GrowthPoint> points = {{1, 100}, {2, 200}, {4, 400}};
  const GrowthCurve curve(points, 1000, GrowthCurve::BendOf(GrowthCurve(points, 1000, 1)));
  EXPECT_NEAR(curve.At(8), 800, 1e-9);
  EXPECT_EQ(curve.At(1e6), 1000);
}

TEST(GrowthCurve, never_falls_and_never_passes_all_memory) {
  const GrowthCurve curve({{1, 50}, {2, 40}, {3, 500}}, 100, 0);
  EXPECT_EQ(curve.At(2), 50);
  EXPECT_EQ(curve.At(3), 100);
  EXPECT_EQ(curve.At(99), 100);
}

TEST(SyntheticTrace, is_made_from_a_few_words) {
  const auto workload =
      ParseSyntheticWorkload("memory=1T,working-set=64G,rate=5e5,pattern=hot,contents=0.5");
  ASSERT_TRUE(workload.ok()) << workload.status();
  EXPECT_EQ(workload->memory, GiB(1024));
  EXPECT_EQ(workload->working_set, GiB(64));
  const DirtyTrace trace = TraceOf(*workload);
  EXPECT_EQ(trace.memory(), PagesCovering(GiB(1024)));
  EXPECT_NEAR(static_cast<double>(trace.contents().value()),
              static_cast<double>(trace.memory().value()) / 2, 100);
  // It is a trace as any other.
  const auto read = ParseDirtyTrace(FormatDirtyTrace(trace));
  ASSERT_TRUE(read.ok()) << read.status();
  const GrowthCurve curve = read->Curve();
  EXPECT_NEAR(curve.At(0.1), 5e4, 1e3);
  EXPECT_NEAR(curve.At(1e5), static_cast<double>(PagesCovering(GiB(64)).value()), 1e3);
}

TEST(SyntheticTrace, patterns_write_as_they_are_called) {
  const auto written = [](const char* pattern, double seconds) {
    const auto workload = ParseSyntheticWorkload(
        std::string("memory=4G,working-set=400M,rate=10240,pattern=") + pattern);
    EXPECT_TRUE(workload.ok());
    return TraceOf(*workload).Curve().At(seconds);
  };
  const double set = 102400;  // pages: ten seconds' writes
  EXPECT_NEAR(written("sequential", 5), set / 2, set / 100);
  EXPECT_NEAR(written("sequential", 20), set, 1);
  EXPECT_NEAR(written("uniform", 10), set * 0.632, set / 100);
  EXPECT_NEAR(written("hot", 5), set / 16 + set * 15 / 16 * 0.065, set / 50);
  EXPECT_NEAR(written("moving", 60), 2 * set, set / 20);
}

TEST(SyntheticTrace, wrong_words_are_told) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "are needed"},
      {"memory=1G,working-set=1G", "are needed"},
      {"memory=1G,rate=1", "are needed"},
      {"working-set=1G,rate=1", "are needed"},
      {"memory", "'memory' must be KEY=VALUE"},
      {"memory=1G,,rate=2", "'' must be KEY=VALUE"},
      {"memory=1X", "memory must be a size"},
      {"memory=", "memory must be a size"},
      {"memory=G", "memory must be a size"},
      {"memory=-1G", "memory must be a size"},
      {"memory=nan", "memory must be a size"},
      {"memory=1e30T", "memory must be a size"},
      {"memory=1K", "memory must be a size"},
      {"rate=fast", "rate must be a number"},
      {"rate=-1", "rate must be a number"},
      {"rate=inf", "rate must be a number"},
      {"contents=1.5", "contents must be a number from 0 to 1"},
      {"pattern=loud", "pattern 'loud' is not known"},
      {"colour=red", "'colour' is not known"},
      {"memory=1G,working-set=2G,rate=1", "working-set must not be larger than memory"},
  };
  for (const auto& [text, told] : cases) {
    const auto workload = ParseSyntheticWorkload(text);
    ASSERT_TRUE(absl::IsInvalidArgument(workload.status())) << text;
    EXPECT_THAT(std::string(workload.status().message()), HasSubstr(told));
  }
}

}  // namespace
}  // namespace ramferry
