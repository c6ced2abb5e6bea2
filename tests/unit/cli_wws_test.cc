// What `ramferry wws` and `ramferry predict` print and draw, without a guest.
#include <cmath>
#include <regex>
#include <string>

#include "cli/plot.h"
#include "cli/svg.h"
#include "cli/wws_view.h"
#include "engine/prediction/synthetic_trace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

WorkingSet Measured() {
  DirtyTrace trace{
      .guest = "web<1>",
      .origin = "measured for 2.0 s in 2 epochs, 100 % of the memory watched",
      .intervals_ms = {10, 100, 1000},
      .blocks = {1, 2, 3},
      .zones = {{.memory = PageCount(65536),
                 .contents = PageCount(51200),
                 .written = {100, 900, 4000}}},
      .timeline = {{.start_ms = 0, .share = 0.0625, .samples = {{10, 90}, {990, 4100}}},
                   {.start_ms = 1000, .samples = {{10, 100}, {990, 4000}}}},
      .hottest = {{.region = "ram0", .first_page = 512, .pages = 512, .written = 300}}};
  return {.trace = std::move(trace), .share = 1, .faults = 8000, .cost = 0.008};
}

TEST(WwsView, text_has_intervals_blocks_and_what_it_cost) {
  const std::string text = FormatWorkingSet(Measured());
  EXPECT_THAT(text, HasSubstr("guest web<1>: 256 MiB, of which 200 MiB hold something; measured"));
  EXPECT_THAT(text, HasSubstr("100 ms        900        3.5              2       9000"));
  EXPECT_THAT(text, HasSubstr("ram0 from 2 MiB: 300 of 512"));
  EXPECT_THAT(text, HasSubstr("8000 faults: about 0.80 %"));
}

TEST(WwsView, json_says_the_same_and_holds_the_trace) {
  const auto json = nlohmann::json::parse(WorkingSetJson(Measured()));
  EXPECT_EQ(json["written_within"][1]["pages"], 900);
  EXPECT_EQ(json["written_within"][1]["blocks"], 2);
  EXPECT_EQ(json["contents_bytes"], 51200 * kPageBytes);
  EXPECT_EQ(json["downtime_by_rounds"][0]["downtime_ms"].size(), kCurveRounds + 1);
  const auto trace = ParseDirtyTrace(json["trace"].dump());
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->WrittenIn(2), 4000);
}

// All that is drawn is inside the drawing, and nothing is not a number.
void ExpectInside(const std::string& svg) {
  EXPECT_TRUE(svg.starts_with("<svg "));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  std::smatch size;
  ASSERT_TRUE(std::regex_search(svg, size, std::regex("width=\"([0-9]+)\" height=\"([0-9]+)\"")));
  const double width = std::stod(size[1]);
  const double height = std::stod(size[2]);
  const std::regex point("([0-9.e+-]+),([0-9.e+-]+) ");
  size_t points = 0;
  for (std::sregex_iterator found(svg.begin(), svg.end(), point); found != std::sregex_iterator();
       ++found, ++points) {
    EXPECT_GE(std::stod((*found)[1]), 0);
    EXPECT_LE(std::stod((*found)[1]), width);
    EXPECT_GE(std::stod((*found)[2]), 0);
    EXPECT_LE(std::stod((*found)[2]), height);
  }
  EXPECT_GT(points, 10U);
}

TEST(WwsView, drawing_has_both_figures_with_axes_units_and_legends) {
  const std::string svg = WorkingSetSvg(Measured().trace);
  ExpectInside(svg);
  for (const char* expected : {"Memory dirtied since it was last collected", "time in s", ">MiB<",
                               "downtime in ms", "rounds before the guest is stopped", ">1 Gbit/s<",
                               ">100 Gbit/s<", "web&lt;1&gt;", "all memory", "from a part"}) {
    EXPECT_THAT(svg, HasSubstr(expected));
  }
  EXPECT_THAT(svg, Not(HasSubstr("web<1>")));
}

TEST(WwsView, guests_that_do_nothing_or_everything_can_be_drawn_too) {
  for (const char* words : {"memory=1M,working-set=1M,rate=0", "memory=1M,working-set=1M,rate=1e12",
                            "memory=4096T,working-set=4096T,rate=1e12,pattern=moving",
                            "memory=1G,working-set=1G,rate=1,contents=0"}) {
    const auto workload = ParseSyntheticWorkload(words);
    ASSERT_TRUE(workload.ok()) << workload.status();
    ExpectInside(WorkingSetSvg(TraceOf(*workload)));
  }
  DirtyTrace nothing{.intervals_ms = {1000}, .zones = {{.memory = PageCount(1), .written = {0}}}};
  ExpectInside(WorkingSetSvg(nothing));
}

TEST(Plot, ticks_are_round_numbers_that_span_all_values) {
  EXPECT_THAT(TicksFor(0, 10, false), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(TicksFor(0, 0.7, false), testing::SizeIs(testing::Ge(6U)));
  EXPECT_THAT(TicksFor(0, 0, false), testing::SizeIs(testing::Ge(2U)));
  EXPECT_THAT(TicksFor(22, 900, true), ElementsAre(10, 100, 1000));
  EXPECT_THAT(TicksFor(10, 10, true), ElementsAre(10, 100));
  EXPECT_THAT(TicksFor(0, 0, true), testing::SizeIs(testing::Ge(2U)));
  for (const double most : {0.001, 0.9, 1.0, 3.3, 17.0, 99.0, 12345.0, 7e11}) {
    const auto ticks = TicksFor(0, most, false);
    EXPECT_GE(ticks.back(), most * (1 - 1e-9)) << most;
    EXPECT_LE(ticks.size(), 12U) << most;
  }
}

TEST(Plot, tick_labels_are_short) {
  EXPECT_EQ(TickLabel(0), "0");
  EXPECT_EQ(TickLabel(0.01), "0.01");
  EXPECT_EQ(TickLabel(2500), "2500");
  EXPECT_EQ(TickLabel(20000), "20k");
  EXPECT_EQ(TickLabel(3e6), "3M");
  EXPECT_EQ(TickLabel(1e9), "1G");
}

TEST(PredictionView, says_whether_it_converges_and_what_it_takes) {
  const auto workload = ParseSyntheticWorkload("memory=4G,working-set=1G,rate=20000");
  ASSERT_TRUE(workload.ok());
  const DirtyTrace trace = TraceOf(*workload);
  PredictionInput input;
  input.options.workers = 1;
  const std::string good = FormatPrediction(trace, input, Predict(trace, input));
  EXPECT_THAT(good, HasSubstr("link 10 Gbit/s, no limit, downtime target 300 ms"));
  EXPECT_THAT(good, HasSubstr("It converges; total "));
  input.options.bandwidth = MiB(20);
  const Prediction prediction = Predict(trace, input);
  const std::string bad = FormatPrediction(trace, input, prediction);
  EXPECT_THAT(bad, HasSubstr("It does not converge: it would be given up"));
  EXPECT_THAT(bad, HasSubstr("limited to 20 MiB/s"));
  const auto json = nlohmann::json::parse(PredictionJson(trace, input, prediction));
  EXPECT_EQ(json["converges"], false);
  EXPECT_EQ(json["rounds"].size(), prediction.rounds.size());
  EXPECT_EQ(json["bandwidth_bytes_per_second"], MiB(20).value());

  input.options.least_bandwidth = MiB(5);
  input.options.not_converging = NotConverging::kWait;
  const std::string waiting = FormatPrediction(trace, input, Predict(trace, input));
  EXPECT_THAT(waiting, HasSubstr("from 5 MiB/s on as the guest writes, up to 20 MiB/s"));
  EXPECT_THAT(waiting, HasSubstr("it would be waited for"));
  input.options.not_converging = NotConverging::kThrottle;
  const std::string throttled = FormatPrediction(trace, input, Predict(trace, input));
  EXPECT_THAT(throttled, HasSubstr("It converges when it is left "));
}

TEST(Svg, text_is_escaped) {
  EXPECT_EQ(SvgEscaped("a<b>&\n"), "a&lt;b&gt;&amp; ");
}

}  // namespace
}  // namespace ramferry
