// Text that came from elsewhere and will be shown to a person or written to a log.
#pragma once

#include <cstddef>
#include <string_view>

namespace ramferry {

enum class TextKind {
  kLine,       // no control characters at all
  kParagraph,  // newlines and tabs are allowed
};

// Bytes of the well-formed, printable character at the start of `text`, 0 if there is none there.
// Well-formed as in RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
// Control characters (C0, DEL, C1) are not printable: they could drive a terminal.
[[nodiscard]] size_t PrintableCharacterBytes(std::string_view text, TextKind kind);

[[nodiscard]] bool IsPrintableText(std::string_view text, TextKind kind);

}  // namespace ramferry
