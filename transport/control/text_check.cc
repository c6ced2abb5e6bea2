#include "transport/control/text_check.h"

#include <cstdint>

namespace ramferry {

size_t PrintableCharacterBytes(std::string_view text, TextKind kind) {
  if (text.empty()) return 0;
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) {
    if (lead >= 0x20 && lead != 0x7f) return 1;
    return kind == TextKind::kParagraph && (lead == '\n' || lead == '\t') ? 1 : 0;
  }
  size_t length = 0;
  uint32_t code = 0;
  uint32_t smallest = 0;  // what this length may encode: rules out overlong forms
  if ((lead & 0xe0) == 0xc0) {
    length = 2, code = lead & 0x1fu, smallest = 0xa0;  // U+0080..U+009F are the C1 controls
  } else if ((lead & 0xf0) == 0xe0) {
    length = 3, code = lead & 0x0fu, smallest = 0x800;
  } else if ((lead & 0xf8) == 0xf0) {
    length = 4, code = lead & 0x07u, smallest = 0x10000;
  } else {
    return 0;
  }
  if (text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = (code << 6) | (byte(i) & 0x3fu);
  }
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  return code >= smallest && code <= 0x10ffff && !surrogate ? length : 0;
}

bool IsPrintableText(std::string_view text, TextKind kind) {
  while (!text.empty()) {
    const size_t length = PrintableCharacterBytes(text, kind);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace ramferry
