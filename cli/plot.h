// A plot with axes, ticks and a legend, as a piece of SVG.
//
//   Plot plot{.title = "Pages dirtied", .x = {"time in s"}, .y = {"MiB"},
//             .series = {{.name = "guest web1", .points = {{0, 0}, {1, 20}}}}};
//   SvgDocument(760, 320, DrawPlot(plot, {.width = 760, .height = 320}));
#pragma once

#include <string>
#include <vector>

namespace ramferry {

struct PlotAxis {
  std::string title;         // with the unit
  bool logarithmic = false;  // of positive values
};

struct PlotPoint {
  double x = 0;
  double y = 0;
};

struct PlotSeries {
  std::string name;  // for the legend; "": not in it
  std::vector<PlotPoint> points;
  bool marked = false;  // with a dot at each point
  bool dashed = false;
  int colour = -1;  // number of its colour; -1: its place among the series
};

struct Plot {
  std::string title;
  PlotAxis x;
  PlotAxis y;
  std::vector<PlotSeries> series;
};

struct PlotPlace {
  double left = 0;
  double top = 0;
  double width = 760;
  double height = 320;
};

[[nodiscard]] std::string DrawPlot(const Plot& plot, const PlotPlace& place);

// Where an axis over these values begins and ends, and its ticks, from end to end: linear in steps
// of 1, 2 or 5 times a power of ten, and from 0 on; logarithmic in powers of ten. At least two.
[[nodiscard]] std::vector<double> TicksFor(double least, double most, bool logarithmic);
// A tick's number: 0.01, 250, 20k, 3M.
[[nodiscard]] std::string TickLabel(double value);

}  // namespace ramferry
