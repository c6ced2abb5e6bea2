#include "cli/report_text.h"

#include <cmath>

#include "fmt/format.h"

namespace ramferry {
namespace {

double MiBIn(ByteCount bytes) {
  return static_cast<double>(bytes.value()) / (1 << 20);
}

double Rate(const RoundReport& round) {
  return round.ms > 0 ? MiBIn(round.bytes) * 1000 / round.ms : 0;
}

// No finer than anybody can use.
std::string FormatTime(double ms) {
  if (ms < 100'000) return fmt::format("{:.1f} s", ms / 1000);
  const auto minutes = std::llround(ms / 60'000);
  return minutes < 100 ? fmt::format("{} min", minutes)
                       : fmt::format("{} h {} min", minutes / 60, minutes % 60);
}

}  // namespace

std::string FormatRound(const RoundReport& round) {
  if (round.stopped) {
    return fmt::format("stop-and-copy: {} pages in {:.1f} ms", round.pages.value(), round.ms);
  }
  std::string text = fmt::format(
      "round {}: {} pages, {:.0f} MiB/s, {:.0f} ms; dirty again {} ({:.0f} pages/s), predicted "
      "downtime {:.0f} ms",
      round.number, round.pages.value(), Rate(round), round.ms, round.dirty_pages.value(),
      round.dirty_rate, round.predicted_downtime_ms);
  if (round.predicted_rest_ms > 0) {
    text += fmt::format(", about {} to go", FormatTime(round.predicted_rest_ms));
  } else if (round.bytes.value() > 0 && round.ms > 0) {
    // As long as a round of what is dirty now would take at this round's speed.
    const double bytes_per_ms = static_cast<double>(round.bytes.value()) / round.ms;
    const double next_ms = static_cast<double>(BytesIn(round.dirty_pages).value()) / bytes_per_ms;
    text += fmt::format(", next round about {}", FormatTime(next_ms));
  }
  return text;
}

std::string FormatProgress(const RoundProgress& progress) {
  std::string text =
      fmt::format("round {}: {:.0f} %, {} pages, {:.0f} MiB/s", progress.number,
                  progress.done * 100, progress.pages.value(),
                  progress.ms > 0 ? MiBIn(BytesIn(progress.pages)) * 1000 / progress.ms : 0);
  if (progress.left_ms() > 0) {
    text += fmt::format(", about {} to its end", FormatTime(progress.left_ms()));
  }
  return text;
}

std::string FormatReport(const MigrationReport& report) {
  std::string text =
      fmt::format("{:>5} {:>10} {:>10} {:>10} {:>9} {:>8} {:>11} {:>12}\n", "round", "pages",
                  "zero", "MiB sent", "ms", "MiB/s", "dirty after", "predicted ms");
  for (const RoundReport& round : report.rounds) {
    text +=
        fmt::format("{:>5} {:>10} {:>10} {:>10.1f} {:>9.1f} {:>8.0f} ",
                    round.stopped ? "stop" : fmt::format("{}", round.number), round.pages.value(),
                    round.zero_pages.value(), MiBIn(round.bytes), round.ms, Rate(round));
    text += round.stopped || round.predicted_downtime_ms == 0
                ? fmt::format("{:>11} {:>12}\n", "-", "-")
                : fmt::format("{:>11} {:>12.1f}\n", round.dirty_pages.value(),
                              round.predicted_downtime_ms);
  }
  if (report.outcome == Outcome::kMigrated) {
    const DowntimeParts& parts = report.downtime_parts;
    text += fmt::format(
        "\ndowntime {:.1f} ms (predicted {:.1f}): pause {:.1f}, last pages {:.1f}, device state "
        "{:.1f}, ",
        report.downtime_ms, report.predicted_downtime_ms, parts.pause, parts.last_pages,
        parts.device_state);
    if (parts.verify > 0) text += fmt::format("verify {:.1f}, ", parts.verify);
    text += fmt::format("commit {:.1f}, resume {:.1f}\n", parts.commit, parts.resume);
  }
  text += fmt::format(
      "total {:.2f} s{}, {:.1f} MiB of pages on the wire ({:.1f} MiB of guest memory), {:.0f} KiB "
      "of "
      "device state, {:.2f} CPU seconds ({:.1f} per GB), {}{}{}\n",
      report.total_ms / 1000,
      report.predicted_total_ms > 0 && report.outcome == Outcome::kMigrated
          ? fmt::format(" (predicted {:.2f} after the first round)",
                        report.predicted_total_ms / 1000)
          : "",
      MiBIn(report.bytes_sent), MiBIn(BytesIn(report.guest_pages)),
      static_cast<double>(report.device_state_bytes.value()) / 1024, report.cpu_seconds,
      report.cpu_seconds_per_gb(), report.transport.empty() ? "no transport" : report.transport,
      report.encrypted ? ", encrypted" : "", report.verified ? ", memory compared: equal" : "");
  if (!report.port_counters.empty()) {
    text += "port:";
    for (const auto& [name, value] : report.port_counters) {
      if (value > 0) text += fmt::format(" {} {},", name, value);
    }
    text.back() = '\n';
  }
  for (size_t i = 0; i < report.placement.size(); ++i) {
    const WorkerReport& worker = report.placement[i];
    text += fmt::format(
        "worker {}: CPU {}{}{}{}, {} pages ({})\n", i, worker.cpus,
        worker.node < 0 ? "" : fmt::format(" of node {}", worker.node),
        worker.memory_node < 0 ? "" : fmt::format(", memory of node {}", worker.memory_node),
        worker.nic.empty() ? "" : ", " + worker.nic, worker.pages.value(), worker.why);
  }
  return text;
}

}  // namespace ramferry
