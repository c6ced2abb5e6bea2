#include "engine/prediction/synthetic_trace.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

constexpr double kWandering = 60;  // seconds until a moving working set is wholly elsewhere
constexpr double kBurst = 4;       // times the rate
constexpr double kBurstMs = 500;
constexpr double kBurstEveryMs = 2000;
constexpr uint64_t kSyntheticZones = 64;
constexpr uint64_t kLeastMemory = MiB(1).value();
constexpr uint64_t kMostMemory = kMostPages << kPageShift;
constexpr double kMostRate = 1e12;

constexpr std::pair<const char*, WritePattern> kPatterns[] = {
    {"uniform", WritePattern::kUniform}, {"sequential", WritePattern::kSequential},
    {"hot", WritePattern::kHot},         {"moving", WritePattern::kMoving},
    {"bursty", WritePattern::kBursty},
};

// A whole text that is one number, without sign, exponent allowed.
std::optional<double> NumberIn(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!std::isfinite(value) || value < 0) return std::nullopt;
  return value;
}

absl::StatusOr<ByteCount> SizeIn(std::string_view key, std::string_view text) {
  constexpr std::string_view kUnits = "KMGT";
  uint64_t unit = 1;
  if (const size_t found = text.empty() ? std::string_view::npos : kUnits.find(text.back());
      found != std::string_view::npos) {
    unit = uint64_t{1} << (10 * (found + 1));
    text.remove_suffix(1);
  }
  const auto value = NumberIn(text);
  if (!value || *value * static_cast<double>(unit) < static_cast<double>(kLeastMemory) ||
      *value * static_cast<double>(unit) > static_cast<double>(kMostMemory)) {
    return absl::InvalidArgumentError(
        fmt::format("{} must be a size from 1M to 4096T, as in 64G", key));
  }
  return ByteCount(static_cast<uint64_t>(*value * static_cast<double>(unit)));
}

absl::Status Assign(std::string_view key, std::string_view value, SyntheticWorkload& workload) {
  if (key == "memory" || key == "working-set") {
    ASSIGN_OR_RETURN(const ByteCount size, SizeIn(key, value));
    (key == "memory" ? workload.memory : workload.working_set) = size;
    return absl::OkStatus();
  }
  if (key == "rate" || key == "contents") {
    const double most = key == "rate" ? kMostRate : 1;
    const auto number = NumberIn(value);
    if (!number || *number > most) {
      return absl::InvalidArgumentError(
          fmt::format("{} must be a number from 0 to {:g}{}", key, most,
                      key == "rate" ? ": pages written a second" : ""));
    }
    (key == "rate" ? workload.rate : workload.contents) = *number;
    return absl::OkStatus();
  }
  if (key == "pattern") {
    for (const auto& [name, pattern] : kPatterns) {
      if (value != name) continue;
      workload.pattern = pattern;
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(fmt::format(
        "pattern '{}' is not known: it is uniform, sequential, hot, moving or bursty", value));
  }
  return absl::InvalidArgumentError(fmt::format(
      "'{}' is not known: there are memory, working-set, rate, pattern and contents", key));
}

// Different pages hit by `rate` writes a second, each to any of `pages`.
double Hit(double pages, double rate, double seconds) {
  return pages <= 0 ? 0 : pages * -std::expm1(-rate * seconds / pages);
}

double Written(const SyntheticWorkload& workload, double seconds) {
  const double rate = workload.rate;
  const auto pages = static_cast<double>(PagesCovering(workload.working_set).value());
  switch (workload.pattern) {
    case WritePattern::kSequential:
      return std::min(pages, rate * seconds);
    case WritePattern::kHot:
      return Hit(pages / 16, rate * 7 / 8, seconds) + Hit(pages * 15 / 16, rate / 8, seconds);
    case WritePattern::kMoving: {
      // Left behind; at most what can be written at all.
      const double wandered = pages * seconds / kWandering;
      return std::min(Hit(pages, rate, seconds) + wandered, rate * seconds);
    }
    default:
      return Hit(pages, rate, seconds);
  }
}

}  // namespace

absl::StatusOr<SyntheticWorkload> ParseSyntheticWorkload(std::string_view text) {
  SyntheticWorkload workload;
  bool has_rate = false;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
    const size_t equals = part.find('=');
    if (equals == std::string_view::npos) {
      return absl::InvalidArgumentError(fmt::format("'{}' must be KEY=VALUE", part));
    }
    RETURN_IF_ERROR(Assign(part.substr(0, equals), part.substr(equals + 1), workload));
    has_rate = has_rate || part.substr(0, equals) == "rate";
  }
  if (workload.memory.value() == 0 || workload.working_set.value() == 0 || !has_rate) {
    return absl::InvalidArgumentError(
        "memory, working-set and rate are needed, as in memory=1T,working-set=64G,rate=500000");
  }
  if (workload.working_set > workload.memory) {
    return absl::InvalidArgumentError("working-set must not be larger than memory");
  }
  return workload;
}

DirtyTrace TraceOf(const SyntheticWorkload& workload) {
  DirtyTrace trace{.guest = "synthetic"};
  const char* pattern = "";
  for (const auto& [name, known] : kPatterns) {
    if (known == workload.pattern) pattern = name;
  }
  trace.origin = fmt::format("made up: {:.0f} writes a second to a working set of {} MiB, {}",
                             workload.rate, workload.working_set.value() >> 20, pattern);
  // From a millisecond to several hours, eight steps a decade: nothing is left to be guessed.
  for (double ms = 1; trace.intervals_ms.size() < kMostIntervals; ms *= std::pow(10, 0.125)) {
    trace.intervals_ms.push_back(ms);
  }
  // The working set is spread over all memory alike: nobody says where it is.
  const uint64_t pages = PagesCovering(workload.memory).value();
  const uint64_t zones = std::min(kSyntheticZones, pages);
  for (uint64_t zone = 0; zone < zones; ++zone) {
    const uint64_t memory = pages * (zone + 1) / zones - pages * zone / zones;
    const double part = static_cast<double>(memory) / static_cast<double>(pages);
    DirtyZone& made = trace.zones.emplace_back();
    made.memory = PageCount(memory);
    made.contents = PageCount(
        static_cast<uint64_t>(std::llround(static_cast<double>(memory) * workload.contents)));
    for (const double ms : trace.intervals_ms) {
      made.written.push_back(
          std::min(static_cast<double>(memory), part * Written(workload, ms / 1000)));
    }
  }
  if (workload.pattern == WritePattern::kBursty) {
    // On average 1: so the curve is of the average rate.
    const double calm = (kBurstEveryMs - kBurst * kBurstMs) / (kBurstEveryMs - kBurstMs);
    trace.activity = {{.ms = kBurstMs, .busy = kBurst},
                      {.ms = kBurstEveryMs - kBurstMs, .busy = calm}};
  }
  return trace;
}

}  // namespace ramferry
