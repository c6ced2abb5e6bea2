#include "cli/progress.h"

#include <unistd.h>

#include <cstdio>

#include "cli/report_text.h"
#include "cli/say.h"
#include "fmt/format.h"

namespace ramferry {

ProgressDisplay::ProgressDisplay() : terminal_(::isatty(STDERR_FILENO) == 1) {}

ProgressDisplay::~ProgressDisplay() {
  if (live_) Tell("\n");
}

void ProgressDisplay::Line(const std::string& text) {
  Tell("{}{}\n", live_ ? "\r\x1b[K" : "", text);
  live_ = false;
  std::fflush(stderr);
}

void ProgressDisplay::Live(const std::string& text) {
  if (!terminal_) return Line(text);
  Tell("\r\x1b[K{}", text);
  live_ = true;
  std::fflush(stderr);
}

void ProgressDisplay::OnStage(Stage stage) {
  stage_ = stage;
  if (stage == Stage::kPreCopy) Line("copying while the guest runs");
  if (stage == Stage::kStopAndCopy) Line("stopping the guest");
}

void ProgressDisplay::OnRound(const RoundReport& round) {
  std::string text = FormatRound(round);
  if (!round.stopped && round.bytes.value() > 0 && round.ms > 0) {
    // As long as a round of what is dirty now would take at this round's speed.
    const double bytes_per_ms = static_cast<double>(round.bytes.value()) / round.ms;
    text +=
        fmt::format(", next round about {:.1f} s",
                    static_cast<double>(BytesIn(round.dirty_pages).value()) / bytes_per_ms / 1000);
  }
  Live(text);
}

void ProgressDisplay::OnNote(const std::string& note) {
  Line(note);
}

}  // namespace ramferry
