// Pieces of SVG as text, for the drawings that the commands make.
#pragma once

#include <string>

namespace ramferry {

// `text` as it may stand between tags.
[[nodiscard]] std::string SvgEscaped(const std::string& text);
// A text at (x, y), its baseline; `style`: further attributes.
[[nodiscard]] std::string SvgText(double x, double y, const std::string& text,
                                  const std::string& style = "");
[[nodiscard]] std::string SvgRectangle(double x, double y, double width, double height,
                                       const std::string& fill);
[[nodiscard]] std::string SvgLine(double x1, double y1, double x2, double y2,
                                  const std::string& style);
// The whole file: a drawing of that size, in pixels.
[[nodiscard]] std::string SvgDocument(double width, double height, const std::string& content);

}  // namespace ramferry
