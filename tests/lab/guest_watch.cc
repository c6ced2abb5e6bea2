// Looks at the test guest of this host through its memory file, or a Xen domain's memory. A program
// and no script, because an emulated host takes seconds to start Python, for each look.
//
//   guest_watch FILE|xen:NAME running   waits until the guest has filled its memory
//   guest_watch FILE|xen:NAME ticks     prints how many ticks it has given
//   guest_watch FILE|xen:NAME whole     waits until it has checked each page once more, then judges
//
// The exit code is 0 when the guest is as the word says.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "base/deadline.h"
#include "base/unique_fd.h"
#include "fmt/format.h"
#include "tests/guests/testguest/mailbox_reader.h"
#ifdef RAMFERRY_XEN
#include "hypervisor-glue/xen/libxen.h"
#include "hypervisor-glue/xen/xen_control.h"
#endif

namespace ramferry {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds kPatience = 300s;

using Look = std::function<std::optional<TestGuestCounters>()>;

std::optional<TestGuestCounters> LookIntoFile(const std::string& file) {
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  return ReadCounters([&](void* to, size_t length, uint64_t address) {
    return fd.valid() && ::pread(fd.get(), to, length, static_cast<off_t>(address)) ==
                             static_cast<ssize_t>(length);
  });
}

#ifdef RAMFERRY_XEN
// The mailbox lies within one page.
std::optional<TestGuestCounters> LookIntoDomain(const std::string& name) {
  constexpr uint64_t kPage = 4096;
  const auto xen = XenControl::Open();
  if (!xen.ok()) return std::nullopt;
  const auto domain = (*xen)->Find(name);
  if (!domain.ok()) return std::nullopt;
  const xen_pfn_t frame = TESTGUEST_MAILBOX_ADDRESS / kPage;
  int error = 0;
  void* const page =
      xenforeignmemory_map((*xen)->memory(), domain->id, PROT_READ, 1, &frame, &error);
  if (page == nullptr) return std::nullopt;
  auto counters = ReadCounters([&](void* to, size_t length, uint64_t address) {
    if (error != 0) return false;
    std::memcpy(to, static_cast<const std::byte*>(page) + address % kPage, length);
    return true;
  });
  xenforeignmemory_unmap((*xen)->memory(), page, 1);
  return counters;
}
#endif

Look LookAt(const std::string& guest) {
#ifdef RAMFERRY_XEN
  if (guest.starts_with("xen:")) return [name = guest.substr(4)] { return LookIntoDomain(name); };
#endif
  return [guest] { return LookIntoFile(guest); };
}

// Nothing when it does not come about in time.
template <class Condition>
std::optional<TestGuestCounters> WaitUntil(const Look& look, const Condition& condition) {
  for (const Deadline end = In(kPatience); Clock::now() < end; std::this_thread::sleep_for(100ms)) {
    const auto now = look();
    if (now && condition(*now)) return now;
  }
  return std::nullopt;
}

// Empty: it is.
std::string WhyNotWhole(const Look& look) {
  const auto before = look();
  if (!before) return "no test guest is to be seen";
  // The sweep under way began earlier: the second to end is whole.
  const auto after = WaitUntil(
      look, [&before](const TestGuestCounters& now) { return now.sweeps >= before->sweeps + 2; });
  if (!after) return "it does not come to check all of its memory";
  if (after->bad != 0) {
    return fmt::format("{} bad pages, the first is {}", after->bad, after->first_bad_page);
  }
  return after->ticks > before->ticks ? "" : "it stands still";
}

int Run(const std::string& guest, const std::string& word) {
  const Look look = LookAt(guest);
  std::string problem;
  if (word == "running") {
    const auto running = [](const TestGuestCounters& now) {
      return now.state == TESTGUEST_STATE_RUNNING;
    };
    if (!WaitUntil(look, running)) problem = "it does not come to run";
  } else if (word == "ticks") {
    if (const auto now = look()) {
      fmt::print("{}\n", now->ticks);
    } else {
      problem = "no test guest is to be seen";
    }
  } else if (word == "whole") {
    problem = WhyNotWhole(look);
  } else {
    problem = fmt::format("'{}' is neither running, ticks nor whole", word);
  }
  if (problem.empty()) return 0;
  fmt::print(stderr, "guest_watch: {}: {}\n", guest, problem);
  return 1;
}

}  // namespace
}  // namespace ramferry

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: guest_watch FILE|xen:NAME running|ticks|whole\n", stderr);
    return 2;
  }
  return ramferry::Run(argv[1], argv[2]);
}
