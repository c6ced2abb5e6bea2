#include "cli/plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "cli/svg.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// Pixels around the field of the curves.
constexpr double kAbove = 34;
constexpr double kBelow = 46;
constexpr double kLeftOf = 66;
constexpr double kRightOf = 150;  // the legend
constexpr double kLegendLine = 18;
constexpr double kTicksWanted = 8;
constexpr const char* kGrid = "stroke=\"#ddd\"";
constexpr const char* kSmall = "font-size=\"11\" fill=\"#333\"";

// Okabe and Ito's colours, which the colour-blind can tell apart.
constexpr std::array kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"};

// Values of one axis to pixels.
class Scale {
 public:
  Scale(std::vector<double> ticks, bool logarithmic, double from, double to)
      : ticks_(std::move(ticks)), logarithmic_(logarithmic), from_(from), to_(to) {}

  [[nodiscard]] const std::vector<double>& ticks() const { return ticks_; }
  [[nodiscard]] double operator()(double value) const {
    const double least = Position(ticks_.front());
    const double part = (Position(value) - least) / (Position(ticks_.back()) - least);
    return from_ + std::clamp(part, 0.0, 1.0) * (to_ - from_);
  }

 private:
  [[nodiscard]] double Position(double value) const {
    return logarithmic_ ? std::log10(std::max(value, ticks_.front())) : value;
  }
  std::vector<double> ticks_;
  bool logarithmic_;
  double from_;
  double to_;
};

Scale ScaleOf(const Plot& plot, const PlotAxis& axis, double PlotPoint::*value, double from,
              double to) {
  double least = std::numeric_limits<double>::infinity();
  double most = 0;
  for (const PlotSeries& series : plot.series) {
    for (const PlotPoint& point : series.points) {
      if (axis.logarithmic && point.*value <= 0) continue;
      least = std::min(least, point.*value);
      most = std::max(most, point.*value);
    }
  }
  return {TicksFor(std::min(least, most), most, axis.logarithmic), axis.logarithmic, from, to};
}

std::string DrawSeries(const PlotSeries& series, const char* colour, const Scale& x,
                       const Scale& y) {
  std::string points;
  std::string dots;
  for (const PlotPoint& point : series.points) {
    points += fmt::format("{:.1f},{:.1f} ", x(point.x), y(point.y));
    if (series.marked) {
      dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\" fill=\"{}\"/>\n",
                          x(point.x), y(point.y), colour);
    }
  }
  return fmt::format(
             "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\"{}/>\n",
             points, colour, series.dashed ? " stroke-dasharray=\"6 4\"" : "") +
         dots;
}

}  // namespace

std::vector<double> TicksFor(double least, double most, bool logarithmic) {
  std::vector<double> ticks;
  if (logarithmic) {
    if (!(least > 0)) least = 1;
    const int first = static_cast<int>(std::floor(std::log10(least) + 1e-9));
    const int last = static_cast<int>(std::ceil(std::log10(std::max(most, least)) - 1e-9));
    for (int power = first; power <= std::max(last, first + 1); ++power) {
      ticks.push_back(std::pow(10, power));
    }
    return ticks;
  }
  if (!(most > 0)) most = 1;
  const double rough = most / kTicksWanted;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= rough * (1 - 1e-9)) step = factor * power;
  }
  const int steps = static_cast<int>(std::ceil(most / step - 1e-9));
  for (int i = 0; i <= std::max(steps, 1); ++i) ticks.push_back(step * i);
  return ticks;
}

std::string TickLabel(double value) {
  const double size = std::abs(value);
  if (size >= 1e9) return fmt::format("{:g}G", value / 1e9);
  if (size >= 1e6) return fmt::format("{:g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:g}k", value / 1e3);
  return fmt::format("{:g}", value);
}

std::string DrawPlot(const Plot& plot, const PlotPlace& place) {
  const double left = place.left + kLeftOf;
  const double right = place.left + place.width - kRightOf;
  const double top = place.top + kAbove;
  const double bottom = place.top + place.height - kBelow;
  const Scale x = ScaleOf(plot, plot.x, &PlotPoint::x, left, right);
  const Scale y = ScaleOf(plot, plot.y, &PlotPoint::y, bottom, top);
  std::string svg =
      SvgText(left, place.top + 20, plot.title, "font-size=\"14\" font-weight=\"bold\"");
  for (const double tick : x.ticks()) {
    svg += SvgLine(x(tick), top, x(tick), bottom, kGrid);
    svg += SvgText(x(tick), bottom + 16, TickLabel(tick),
                   fmt::format("text-anchor=\"middle\" {}", kSmall));
  }
  for (const double tick : y.ticks()) {
    svg += SvgLine(left, y(tick), right, y(tick), kGrid);
    svg += SvgText(left - 6, y(tick) + 4, TickLabel(tick),
                   fmt::format("text-anchor=\"end\" {}", kSmall));
  }
  svg += SvgLine(left, bottom, right, bottom, "stroke=\"#333\"");
  svg += SvgLine(left, top, left, bottom, "stroke=\"#333\"");
  svg += SvgText((left + right) / 2, bottom + 36, plot.x.title, "text-anchor=\"middle\"");
  svg += SvgText(place.left + 16, (top + bottom) / 2, plot.y.title,
                 fmt::format("text-anchor=\"middle\" transform=\"rotate(-90 {:.1f} {:.1f})\"",
                             place.left + 16, (top + bottom) / 2));
  double legend = top + 8;
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const PlotSeries& series = plot.series[i];
    const size_t number = series.colour >= 0 ? static_cast<size_t>(series.colour) : i;
    const char* const colour = kColours[number % kColours.size()];
    svg += DrawSeries(series, colour, x, y);
    if (series.name.empty()) continue;
    svg += SvgLine(right + 12, legend - 4, right + 32, legend - 4,
                   fmt::format("stroke=\"{}\" stroke-width=\"2\"{}", colour,
                               series.dashed ? " stroke-dasharray=\"6 4\"" : ""));
    svg += SvgText(right + 38, legend, series.name, kSmall);
    legend += kLegendLine;
  }
  return svg;
}

}  // namespace ramferry
