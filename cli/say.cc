#include "cli/say.h"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

namespace ramferry {
namespace {

// For a reader that is slow. One that let it pass is not waited for again until it reads.
constexpr int kPatienceMs = 100;

}  // namespace

void SayText(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void TellText(std::string_view text) {
  static std::atomic<bool> stuck = false;
  pollfd reader{.fd = STDERR_FILENO, .events = POLLOUT};
  stuck = ::poll(&reader, 1, stuck ? 0 : kPatienceMs) == 0;
  if (!stuck) std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace ramferry
