// How many different pages a guest writes within an interval of a given length.
//
//   GrowthCurve curve({{0.01, 120}, {0.1, 900}, {1, 4000}}, /*most=*/262144);
//   curve.At(0.05);   // pages written within 50 ms
//
// Between its points the curve is straight (from no pages in no time on); behind the last one it
// goes on as it bent before, and never over `most`. This curve is all that a round of pre-copy asks
// of a guest: a round of that length leaves so many pages dirty. It is the "writable working set"
// of Clark et al. (NSDI 2005), section 4.2.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace ramferry {

struct GrowthPoint {
  double seconds = 0;
  double pages = 0;
};

class GrowthCurve {
 public:
  GrowthCurve() = default;
  // Points by ascending time, each later than 0; a curve never falls: what does is levelled.
  // `bend` from BendOf says how it goes on.
  GrowthCurve(std::vector<GrowthPoint> points, double most, double bend)
      : points_(std::move(points)), most_(most), bend_(bend) {
    double highest = 0;
    for (GrowthPoint& point : points_) {
      highest = point.pages = std::clamp(point.pages, highest, most_);
    }
  }

  [[nodiscard]] double At(double seconds) const {
    if (seconds <= 0 || points_.empty()) return 0;
    if (seconds > points_.back().seconds) return Beyond(seconds);
    return Between(seconds);
  }

  // Of the last quarter's growth to that of the quarter before it: 1 for a guest that finds new
  // pages all the time, 0 for one that has seen them all. Taken of a whole guest: a single zone
  // has too few pages to tell.
  [[nodiscard]] static double BendOf(const GrowthCurve& whole) {
    if (whole.points_.empty()) return 1;
    const double end = whole.points_.back().seconds;
    const double before = whole.Between(0.75 * end) - whole.Between(0.5 * end);
    const double last = whole.Between(end) - whole.Between(0.75 * end);
    if (before <= 0) return last > 0 ? 1 : 0;
    const double bend = last / before;
    // Nearly straight counts as straight: over a long time the difference would be noise.
    return bend > kStraight ? 1 : std::max(bend, 0.0);
  }

 private:
  static constexpr double kStraight = 0.97;

  [[nodiscard]] double Between(double seconds) const {
    GrowthPoint from;
    for (const GrowthPoint& to : points_) {
      if (seconds <= to.seconds) {
        const double part = (seconds - from.seconds) / (to.seconds - from.seconds);
        return from.pages + part * (to.pages - from.pages);
      }
      from = to;
    }
    return from.pages;
  }

  // Each quarter (of what was measured) grows by `bend_` times the growth of the one before.
  [[nodiscard]] double Beyond(double seconds) const {
    const double end = points_.back().seconds;
    const double quarter = end / 4;
    const double last = points_.back().pages - Between(0.75 * end);
    const double quarters = (seconds - end) / quarter;
    const double sum = bend_ >= 1  ? quarters
                       : bend_ > 0 ? bend_ * (1 - std::pow(bend_, quarters)) / (1 - bend_)
                                   : 0;
    return std::min(points_.back().pages + last * sum, most_);
  }

  std::vector<GrowthPoint> points_;
  double most_ = 0;
  double bend_ = 1;
};

}  // namespace ramferry
