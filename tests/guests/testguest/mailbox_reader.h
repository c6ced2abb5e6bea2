// The test guest's counters, out of its memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "tests/guests/testguest/mailbox.h"

namespace ramferry {

// One whole set of counters; of a guest that runs as of one that was stopped in the middle of an
// update. `read(to, length, address)` copies guest memory and says whether it could. Nothing: it
// could not, or the guest has not opened its mailbox yet, or it is another version of the guest.
template <class Read>
[[nodiscard]] std::optional<TestGuestCounters> ReadCounters(const Read& read) {
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    TestGuestMailbox mailbox{};
    uint32_t publication = 0;
    if (!read(&mailbox, sizeof mailbox, TESTGUEST_MAILBOX_ADDRESS) ||
        mailbox.magic != TESTGUEST_MAILBOX_MAGIC || mailbox.version != TESTGUEST_MAILBOX_VERSION ||
        mailbox.size != sizeof mailbox ||
        !read(&publication, sizeof publication,
              TESTGUEST_MAILBOX_ADDRESS + offsetof(TestGuestMailbox, publication))) {
      return std::nullopt;
    }
    if (publication == mailbox.publication) return mailbox.counters[publication % 2];
  }
  return std::nullopt;
}

}  // namespace ramferry
