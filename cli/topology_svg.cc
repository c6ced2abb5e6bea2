// The drawing of TopologyView: boxes side by side, one a node.
#include <algorithm>
#include <sstream>

#include "cli/svg.h"
#include "cli/topology_view.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// Pixels.
constexpr int kBox = 300;
constexpr int kGap = 20;
constexpr int kMargin = 16;
constexpr int kCpu = 28;
constexpr int kLine = 18;
constexpr int kCpusInRow = (kBox - 2 * kMargin) / kCpu;
constexpr int kSmallLine = 14;
// Characters of the small print that are sure to fit into a box.
constexpr size_t kSmallPrint = 46;

const char* ColourOf(const std::string& use) {
  if (use.starts_with("worker")) return "#8fd19e";
  if (use == "vCPUs") return "#f5c77e";
  if (use == "isolated") return "#d9b3e6";
  return use.empty() ? "#ffffff" : "#cccccc";
}

// The text in lines of at most `most` characters (a longer word has one to itself).
std::vector<std::string> Wrapped(const std::string& text, size_t most) {
  std::vector<std::string> lines = {""};
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    std::string& line = lines.back();
    if (!line.empty() && line.size() + 1 + word.size() > most) {
      lines.push_back(word);
    } else {
      line += (line.empty() ? "" : " ") + word;
    }
  }
  return lines;
}

// The guest's memory on this node, region by region; with one node nothing was measured.
void DrawMemory(const TopologyView& view, const HostNode& node, int x, int& y, std::string& svg) {
  for (const MemoryView& memory : view.guest->memory) {
    const auto found = memory.bytes_by_node.find(node.id);
    const bool here = found != memory.bytes_by_node.end();
    if (!here && !view.host.one_node()) continue;
    svg += SvgText(
        x + kMargin, y += kLine,
        fmt::format("{}{}: {} MiB", memory.name,
                    memory.guest_node < 0 ? "" : fmt::format(" (guest node {})", memory.guest_node),
                    (here ? found->second : memory.populated) >> 20));
  }
}

// Where workers are bound to no node (one node, and nothing to keep off), they are in the one box.
void DrawWorkers(const TopologyView& view, const HostNode& node, int x, int& y, std::string& svg) {
  const auto& workers = view.guest->plan.workers;
  for (size_t i = 0; i < workers.size(); ++i) {
    const WorkerPlace& worker = workers[i];
    if (worker.node != node.id && !view.host.one_node()) continue;
    const std::string cpus =
        worker.cpus.empty() ? "any CPU" : fmt::format("CPU {}", FormatCpuSet(worker.cpus));
    svg += SvgText(x + kMargin, y += kLine,
                   fmt::format("worker {}: {}, {} slices{}{}", i, cpus, worker.slices.size(),
                               worker.home < 0 ? "" : fmt::format(" of node {}", worker.home),
                               worker.nic.empty() ? "" : ", " + worker.nic));
    for (const std::string& line : Wrapped(worker.why, kSmallPrint)) {
      if (line.empty()) continue;
      svg += SvgText(x + kMargin + 12, y += kSmallLine, line, "font-size=\"10\" fill=\"#555\"");
    }
  }
}

// Draws the node at x; returns how far down it came.
int DrawNode(const TopologyView& view, const HostNode& node, int x, std::string& svg) {
  int y = 40;
  svg += SvgText(x + kMargin, y += kLine, fmt::format("node {}", node.id), "font-weight=\"bold\"");
  const uint64_t guest = view.GuestBytesOn(node.id);
  const int width = kBox - 2 * kMargin;
  svg += SvgRectangle(x + kMargin, y += 10, width, 16, "#eeeeee");
  if (guest > 0 && node.memory.value() > 0) {
    const double part =
        std::min(1.0, static_cast<double>(guest) / static_cast<double>(node.memory.value()));
    svg += SvgRectangle(x + kMargin, y, std::max(2, static_cast<int>(width * part)), 16, "#7fb2e5");
  }
  y += 16;
  svg += SvgText(x + kMargin, y += kLine,
                 fmt::format("{} MiB, {} available, guest {}", node.memory.value() >> 20,
                             node.available.value() >> 20, guest >> 20));
  y += 8;
  int column = 0;
  for (const HostCpu& cpu : view.host.cpus) {
    if (cpu.node != node.id) continue;
    if (column == kCpusInRow) {
      column = 0;
      y += kCpu;
    }
    const std::string use = view.UseOf(cpu);
    const int left = x + kMargin + column * kCpu;
    svg += fmt::format("<g>{}{}<title>CPU {}{}{}</title></g>\n",
                       SvgRectangle(left, y, kCpu - 4, kCpu - 4, ColourOf(use)),
                       SvgText(left + 4, y + 16, std::to_string(cpu.id)), cpu.id,
                       use.empty() ? "" : ": ", use);
    ++column;
  }
  y += kCpu;
  for (const HostNic& nic : view.host.nics) {
    if (nic.node == node.id) svg += SvgText(x + kMargin, y += kLine, "⇄ " + nic.name);
  }
  if (view.guest) {
    DrawMemory(view, node, x, y, svg);
    DrawWorkers(view, node, x, y, svg);
  }
  return y + kMargin;
}

}  // namespace

std::string TopologySvg(const TopologyView& view) {
  std::string nodes;
  int bottom = 0;
  int x = kGap;
  for (const HostNode& node : view.host.nodes) {
    bottom = std::max(bottom, DrawNode(view, node, x, nodes));
    x += kBox + kGap;
  }
  std::string svg;
  svg += SvgText(kGap, 24, view.guest ? "guest " + view.guest->name : "host", "font-size=\"16\"");
  x = kGap;
  for (size_t i = 0; i < view.host.nodes.size(); ++i, x += kBox + kGap) {
    svg += SvgRectangle(x, 36, kBox, bottom - 36, "#fafafa");
  }
  svg += nodes;
  int y = bottom + kGap;
  svg += SvgText(
      kGap, y,
      "green: a worker; orange: vCPUs pinned; violet: isolated; grey: not allowed; blue: the "
      "guest's memory",
      "fill=\"#555\"");
  for (const HostNic& nic : view.host.nics) {
    if (nic.node < 0) {
      svg += SvgText(kGap, y += kLine, fmt::format("⇄ {}, of no particular node", nic.name));
    }
  }
  if (view.guest) {
    for (const std::string& note : view.guest->plan.notes) svg += SvgText(kGap, y += kLine, note);
  }
  return SvgDocument(std::max(x, 2 * kBox), y + kLine, svg);
}

}  // namespace ramferry
