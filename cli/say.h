// What a person is told. Unlike fmt::print it cannot fail: a full log disk, a pipe or a terminal
// that is gone must not end a process that has a guest in its hands.
#pragma once

#include <string_view>
#include <utility>

#include "fmt/format.h"

namespace ramferry {

// To standard output: what a command was asked for.
void SayText(std::string_view text);

// To standard error: progress, notes and reasons. All of it in one write. It does not wait either:
// what nobody takes within a moment (a terminal held by Ctrl-S, a pipe that nobody reads) is lost.
// Thread-safe.
void TellText(std::string_view text);

template <class... Args>
void Say(fmt::format_string<Args...> format, Args&&... args) {
  SayText(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void Tell(fmt::format_string<Args...> format, Args&&... args) {
  TellText(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace ramferry
