#include "cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/report_text.h"
#include "cli/say.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// A log of a round that takes hours stays short enough to be read.
constexpr double kLogEveryMs = 10000;

}  // namespace

ProgressDisplay::ProgressDisplay() : terminal_(::isatty(STDERR_FILENO) == 1) {}

ProgressDisplay::~ProgressDisplay() {
  if (live_) Tell("\n");
}

void ProgressDisplay::Line(const std::string& text) {
  Tell("{}{}\n", live_ ? "\r\x1b[K" : "", text);
  live_ = false;
}

void ProgressDisplay::Live(const std::string& text) {
  if (!terminal_) return Line(text);
  // What goes on in a second row could not be taken back.
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  Tell("\r\x1b[K{}", known ? text.substr(0, size.ws_col - 1U) : text);
  live_ = true;
}

void ProgressDisplay::OnStage(Stage stage) {
  stage_ = stage;
  if (stage == Stage::kPreCopy) Line("copying while the guest runs");
  if (stage == Stage::kStopAndCopy) Line("stopping the guest");
}

void ProgressDisplay::OnProgress(const RoundProgress& progress) {
  if (!terminal_) {
    if (progress.ms < logged_ms_ + kLogEveryMs) return;
    logged_ms_ = progress.ms;
  }
  Live(FormatProgress(progress));
}

void ProgressDisplay::OnRound(const RoundReport& round) {
  logged_ms_ = 0;
  Live(FormatRound(round));
}

void ProgressDisplay::OnNote(const std::string& note) {
  Line(note);
}

}  // namespace ramferry
