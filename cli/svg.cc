#include "cli/svg.h"

#include <cmath>

#include "fmt/format.h"

namespace ramferry {
namespace {

// A tenth of a pixel is enough, and "40" shorter than "40.0".
std::string Pixels(double value) {
  const double rounded = std::round(value * 10) / 10;
  return fmt::format("{:g}", rounded == 0 ? 0.0 : rounded);
}

}  // namespace

std::string SvgEscaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '&':
        escaped += "&amp;";
        break;
      default:
        // XML has no control characters.
        escaped += c >= 0 && c < ' ' ? ' ' : c;
    }
  }
  return escaped;
}

std::string SvgText(double x, double y, const std::string& text, const std::string& style) {
  return fmt::format("<text x=\"{}\" y=\"{}\" {}>{}</text>\n", Pixels(x), Pixels(y), style,
                     SvgEscaped(text));
}

std::string SvgRectangle(double x, double y, double width, double height, const std::string& fill) {
  return fmt::format(
      "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\" stroke=\"#555\"/>\n",
      Pixels(x), Pixels(y), Pixels(width), Pixels(height), fill);
}

std::string SvgLine(double x1, double y1, double x2, double y2, const std::string& style) {
  return fmt::format("<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" {}/>\n", Pixels(x1), Pixels(y1),
                     Pixels(x2), Pixels(y2), style);
}

std::string SvgDocument(double width, double height, const std::string& content) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n{}</svg>\n",
      Pixels(width), Pixels(height), content);
}

}  // namespace ramferry
