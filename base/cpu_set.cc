#include "base/cpu_set.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <charconv>

#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// Takes a number off the front of `text`; -1 if there is none, or none that can be a CPU.
int TakeNumber(std::string_view& text) {
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0 || number >= kMaxCpus) return -1;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

// cpu_set_t is too small for large hosts: words for kMaxCpus.
using Mask = std::vector<unsigned long>;
constexpr size_t kWordBits = 8 * sizeof(unsigned long);

}  // namespace

absl::StatusOr<CpuSet> ParseCpuSet(std::string_view text) {
  const std::string_view whole = text;
  const auto wrong = [&] {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is no list of CPUs: write it as in 0-3,8", whole));
  };
  CpuSet cpus;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  while (!text.empty()) {
    const int first = TakeNumber(text);
    int last = first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      last = TakeNumber(text);
    }
    if (first < 0 || last < first) return wrong();
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (text.empty()) break;
    if (!text.starts_with(',') || text.size() == 1) return wrong();
    text.remove_prefix(1);
  }
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return cpus;
}

std::string FormatCpuSet(const CpuSet& cpus) {
  std::string text;
  for (size_t i = 0; i < cpus.size();) {
    size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text += last == i ? fmt::format("{}", cpus[i]) : fmt::format("{}-{}", cpus[i], cpus[last]);
    i = last + 1;
  }
  return text;
}

bool Contains(const CpuSet& cpus, int cpu) {
  return std::binary_search(cpus.begin(), cpus.end(), cpu);
}

CpuSet AffinityOf(pid_t thread) {
  Mask mask(kMaxCpus / kWordBits);
  CpuSet cpus;
  if (::sched_getaffinity(thread, mask.size() * sizeof mask[0],
                          reinterpret_cast<cpu_set_t*>(mask.data())) != 0) {
    return cpus;
  }
  for (int cpu = 0; cpu < kMaxCpus; ++cpu) {
    const auto bit = static_cast<size_t>(cpu);
    if ((mask[bit / kWordBits] >> (bit % kWordBits) & 1) != 0) cpus.push_back(cpu);
  }
  return cpus;
}

absl::Status BindThisThread(const CpuSet& cpus) {
  if (cpus.empty()) return absl::OkStatus();
  Mask mask(static_cast<size_t>(cpus.back()) / kWordBits + 1);
  for (const int cpu : cpus) {
    const auto bit = static_cast<size_t>(cpu);
    mask[bit / kWordBits] |= 1UL << (bit % kWordBits);
  }
  if (::sched_setaffinity(0, mask.size() * sizeof mask[0],
                          reinterpret_cast<const cpu_set_t*>(mask.data())) != 0) {
    return ErrnoStatus(errno, fmt::format("cannot bind a thread to CPU {}", FormatCpuSet(cpus)));
  }
  return absl::OkStatus();
}

void NameThisThread(const char* kind, size_t index) {
  constexpr size_t kMost = 15;  // pthread_setname_np(3)
  ::pthread_setname_np(::pthread_self(),
                       fmt::format("{}-{}", kind, index).substr(0, kMost).c_str());
}

BoundForAWhile::BoundForAWhile(const CpuSet& cpus) {
  if (cpus.empty()) return;
  before_ = AffinityOf(0);
  BindThisThread(cpus).IgnoreError();
}

BoundForAWhile::~BoundForAWhile() {
  BindThisThread(before_).IgnoreError();
}

}  // namespace ramferry
