#include "cli/wws_view.h"

#include <iterator>

#include "cli/plot.h"
#include "cli/svg.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

using nlohmann::ordered_json;

// Gbit/s. The paper's were 128, 256 and 512 Mbit/s.
constexpr double kBandwidths[] = {1, 2.5, 10, 25, 100};
constexpr double kGigabit = 1e9 / 8;  // bytes
constexpr double kFigureWidth = 760;
constexpr double kFigureHeight = 320;

double PagesToMiB(double pages) {
  return pages * static_cast<double>(kPageBytes) / (1 << 20);
}

std::string Duration(double ms) {
  if (ms < 1000) return fmt::format("{:g} ms", ms);
  return fmt::format("{:g} s", ms / 1000);
}

// Sawteeth: one for each epoch, all of them one series.
Plot PlotOverTime(const DirtyTrace& trace) {
  Plot plot{
      .title = "Memory dirtied since it was last collected", .x = {"time in s"}, .y = {"MiB"}};
  bool named[2] = {false, false};
  for (const DirtyEpoch& epoch : trace.timeline) {
    const bool part = epoch.share < 1;
    PlotSeries series{.dashed = part, .colour = part ? 5 : 0};
    if (!named[part ? 1 : 0]) series.name = part ? "from a part" : "all memory";
    named[part ? 1 : 0] = true;
    series.points.push_back({epoch.start_ms / 1000, 0});
    for (const DirtySample& sample : epoch.samples) {
      series.points.push_back({(epoch.start_ms + sample.ms) / 1000, PagesToMiB(sample.pages)});
    }
    plot.series.push_back(std::move(series));
  }
  return plot;
}

// Where there is no timeline, as for a synthetic guest: the curve itself.
Plot PlotCurve(const DirtyTrace& trace) {
  Plot plot{.title = "Memory dirtied within an interval",
            .x = {"interval in s", /*logarithmic=*/true},
            .y = {"MiB"}};
  PlotSeries& series = plot.series.emplace_back(PlotSeries{.name = "pages"});
  for (size_t i = 0; i < trace.intervals_ms.size(); ++i) {
    series.points.push_back({trace.intervals_ms[i] / 1000, PagesToMiB(trace.WrittenIn(i))});
  }
  return plot;
}

Plot PlotDowntimes(const DirtyTrace& trace) {
  Plot plot{.title = "Expected downtime by rounds of pre-copy",
            .x = {"rounds before the guest is stopped"},
            .y = {"downtime in ms", /*logarithmic=*/true}};
  for (const DowntimeCurve& curve : DowntimeCurves(trace)) {
    PlotSeries& series = plot.series.emplace_back(
        PlotSeries{.name = fmt::format("{:g} Gbit/s", curve.gigabits), .marked = true});
    for (size_t i = 0; i < curve.downtime_ms.size(); ++i) {
      series.points.push_back({static_cast<double>(i), curve.downtime_ms[i]});
    }
  }
  return plot;
}

ordered_json IntervalsJson(const DirtyTrace& trace) {
  ordered_json intervals = ordered_json::array();
  for (size_t i = 0; i < trace.intervals_ms.size(); ++i) {
    const double pages = trace.WrittenIn(i);
    ordered_json entry = {{"ms", trace.intervals_ms[i]}, {"pages", pages}};
    if (!trace.blocks.empty()) entry["blocks"] = trace.blocks[i];
    entry["pages_per_second"] = pages * 1000 / trace.intervals_ms[i];
    intervals.push_back(std::move(entry));
  }
  return intervals;
}

std::string DescribeRates(const MigrationOptions& options) {
  const uint64_t least = options.least_bandwidth.value() >> 20;
  const uint64_t most = options.bandwidth.value() >> 20;
  if (least != 0) {
    return fmt::format("from {} MiB/s on as the guest writes, {}", least,
                       most == 0 ? "without end" : fmt::format("up to {} MiB/s", most));
  }
  return most == 0 ? "no limit" : fmt::format("limited to {} MiB/s while the guest runs", most);
}

std::string DescribeOutcome(const Prediction& prediction, NotConverging choice) {
  if (prediction.converges) {
    return prediction.cpu_share == 1
               ? "It converges"
               : fmt::format("It converges when it is left {:.0f} % of its CPUs' time",
                             prediction.cpu_share * 100);
  }
  if (prediction.migrates) return "It does not converge, and is stopped anyway";
  return choice == NotConverging::kWait
             ? "It does not converge: it would be waited for until it writes less"
             : "It does not converge: it would be given up, and stay where it is";
}

}  // namespace

std::vector<DowntimeCurve> DowntimeCurves(const DirtyTrace& trace) {
  std::vector<DowntimeCurve> curves;
  curves.reserve(std::size(kBandwidths));
  for (const double gigabits : kBandwidths) {
    const PredictionInput input{.link = {.bytes_per_second = gigabits * kGigabit}};
    curves.push_back({gigabits, DowntimeByRounds(trace, input, kCurveRounds)});
  }
  return curves;
}

std::string FormatWorkingSet(const WorkingSet& set) {
  const DirtyTrace& trace = set.trace;
  std::string text =
      fmt::format("guest {}: {:.0f} MiB, of which {:.0f} MiB hold something; {}\n\n", trace.guest,
                  PagesToMiB(static_cast<double>(trace.memory().value())),
                  PagesToMiB(static_cast<double>(trace.contents().value())), trace.origin);
  text += fmt::format("{:>10} {:>10} {:>10} {:>14} {:>10} {:>9}\n", "within", "pages", "MiB",
                      "blocks (2 MiB)", "pages/s", "Gbit/s");
  for (size_t i = 0; i < trace.intervals_ms.size(); ++i) {
    const double pages = trace.WrittenIn(i);
    const double rate = pages * 1000 / trace.intervals_ms[i];
    text += fmt::format("{:>10} {:>10.0f} {:>10.1f} {:>14} {:>10.0f} {:>9.3f}\n",
                        Duration(trace.intervals_ms[i]), pages, PagesToMiB(pages),
                        trace.blocks.empty() ? "-" : fmt::format("{:.0f}", trace.blocks[i]), rate,
                        rate * static_cast<double>(kPageBytes) / kGigabit);
  }
  if (!trace.hottest.empty()) {
    text += fmt::format("\nhottest blocks (pages written within {:g} ms)\n", kHotIntervalMs);
  }
  for (const HotBlock& block : trace.hottest) {
    text +=
        fmt::format("  {} from {:.0f} MiB: {:.0f} of {}\n", block.region,
                    PagesToMiB(static_cast<double>(block.first_page)), block.written, block.pages);
  }
  text += fmt::format("\nexpected downtime in ms, if it is stopped after so many rounds\n{:>12}",
                      "rounds");
  for (uint32_t rounds = 0; rounds <= kCurveRounds; ++rounds) text += fmt::format(" {:>8}", rounds);
  text += "\n";
  for (const DowntimeCurve& curve : DowntimeCurves(trace)) {
    text += fmt::format("{:>12}", fmt::format("{:g} Gbit/s", curve.gigabits));
    for (const double ms : curve.downtime_ms) text += fmt::format(" {:>8.0f}", ms);
    text += "\n";
  }
  text += fmt::format(
      "\nto measure, {:.0f} faults: about {:.2f} % of the virtual CPUs' time while it lasted\n",
      set.faults, 100 * set.cost);
  return text;
}

std::string WorkingSetJson(const WorkingSet& set) {
  const DirtyTrace& trace = set.trace;
  ordered_json curves = ordered_json::array();
  for (const DowntimeCurve& curve : DowntimeCurves(trace)) {
    curves.push_back({{"gigabits_per_second", curve.gigabits}, {"downtime_ms", curve.downtime_ms}});
  }
  const ordered_json object = {
      {"guest", trace.guest},
      {"origin", trace.origin},
      {"memory_bytes", BytesIn(trace.memory()).value()},
      {"contents_bytes", BytesIn(trace.contents()).value()},
      {"watched_share", set.share},
      {"faults", set.faults},
      {"estimated_cost", set.cost},
      {"written_within", IntervalsJson(trace)},
      {"downtime_by_rounds", curves},
      {"trace", ordered_json::parse(FormatDirtyTrace(trace), nullptr, false)}};
  return object.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string WorkingSetSvg(const DirtyTrace& trace) {
  const Plot over_time = trace.timeline.empty() ? PlotCurve(trace) : PlotOverTime(trace);
  constexpr double kTitle = 30;
  std::string svg = SvgRectangle(0, 0, kFigureWidth, kTitle + 2 * kFigureHeight, "#ffffff");
  svg += SvgText(16, 22, fmt::format("guest {}: {}", trace.guest, trace.origin),
                 "font-size=\"13\" fill=\"#333\"");
  svg += DrawPlot(over_time, {.top = kTitle, .width = kFigureWidth, .height = kFigureHeight});
  svg += DrawPlot(PlotDowntimes(trace),
                  {.top = kTitle + kFigureHeight, .width = kFigureWidth, .height = kFigureHeight});
  return SvgDocument(kFigureWidth, kTitle + 2 * kFigureHeight, svg);
}

std::string FormatPrediction(const DirtyTrace& trace, const PredictionInput& input,
                             const Prediction& prediction) {
  std::string text = fmt::format(
      "guest {}: {:.0f} MiB, of which {:.0f} MiB hold something; {}\n"
      "link {:g} Gbit/s, {}, downtime target {} ms\n\n",
      trace.guest, PagesToMiB(static_cast<double>(trace.memory().value())),
      PagesToMiB(static_cast<double>(trace.contents().value())), trace.origin,
      input.link.bytes_per_second / kGigabit, DescribeRates(input.options),
      input.options.downtime_target.count());
  text += fmt::format("{:>5} {:>12} {:>12} {:>11} {:>13} {:>12}\n", "round", "pages", "MiB sent",
                      "ms", "dirty after", "downtime ms");
  for (const RoundReport& round : prediction.rounds) {
    text +=
        fmt::format("{:>5} {:>12} {:>12.1f} {:>11.1f} ",
                    round.stopped ? "stop" : fmt::format("{}", round.number), round.pages.value(),
                    PagesToMiB(static_cast<double>(round.pages.value())), round.ms);
    text += round.predicted_downtime_ms == 0
                ? fmt::format("{:>13} {:>12}\n", "-", "-")
                : fmt::format("{:>13} {:>12.1f}\n", round.dirty_pages.value(),
                              round.predicted_downtime_ms);
  }
  text += fmt::format("\n{}; {} {:.2f} s, {:.1f} MiB on the wire, {} {:.0f} ms\n",
                      DescribeOutcome(prediction, input.options.not_converging),
                      prediction.migrates ? "total" : "until then", prediction.total_ms / 1000,
                      prediction.bytes / (1 << 20),
                      prediction.migrates ? "downtime" : "a stop then would take",
                      prediction.downtime_ms);
  return text;
}

std::string PredictionJson(const DirtyTrace& trace, const PredictionInput& input,
                           const Prediction& prediction) {
  ordered_json rounds = ordered_json::array();
  for (const RoundReport& round : prediction.rounds) {
    rounds.push_back({{"number", round.number},
                      {"stopped", round.stopped},
                      {"pages", round.pages.value()},
                      {"bytes", round.bytes.value()},
                      {"ms", round.ms},
                      {"dirty_pages", round.dirty_pages.value()},
                      {"predicted_downtime_ms", round.predicted_downtime_ms}});
  }
  const ordered_json object = {
      {"guest", trace.guest},
      {"origin", trace.origin},
      {"memory_bytes", BytesIn(trace.memory()).value()},
      {"contents_bytes", BytesIn(trace.contents()).value()},
      {"link_bytes_per_second", input.link.bytes_per_second},
      {"bandwidth_bytes_per_second", input.options.bandwidth.value()},
      {"least_bandwidth_bytes_per_second", input.options.least_bandwidth.value()},
      {"downtime_target_ms", input.options.downtime_target.count()},
      {"converges", prediction.converges},
      {"migrates", prediction.migrates},
      {"cpu_share", prediction.cpu_share},
      {"total_ms", prediction.total_ms},
      {"downtime_ms", prediction.downtime_ms},
      {"bytes_sent", prediction.bytes},
      {"rounds", rounds}};
  return object.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace ramferry
