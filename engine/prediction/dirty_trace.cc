#include "engine/prediction/dirty_trace.h"

#include <cmath>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kFormatName = "ramferry dirty trace";
constexpr int kVersion = 1;
constexpr double kLongestMs = 1e9;  // 11 days

absl::Status Wrong(const std::string& field, const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("{} must be {}", field, what));
}

// Reads the fields of one object; the first that is wrong is told with its full name.
class FieldsOf {
 public:
  FieldsOf(const json& object, std::string name) : object_(object), name_(std::move(name)) {}

  absl::Status Number(const char* key, double least, double most, double& value) const {
    const json* field = Find(key);
    if (field == nullptr || !field->is_number()) return Wrong(Name(key), "a number");
    return Checked(*field, Name(key), least, most, value);
  }
  absl::Status Pages(const char* key, uint64_t least, uint64_t most, uint64_t& value) const {
    const json* field = Find(key);
    if (field == nullptr || !field->is_number_unsigned() || field->get<uint64_t>() < least ||
        field->get<uint64_t>() > most) {
      return Wrong(Name(key), fmt::format("a whole number of pages, {} to {}", least, most));
    }
    value = field->get<uint64_t>();
    return absl::OkStatus();
  }
  absl::Status Text(const char* key, std::string& value) const {
    const json* field = Find(key);
    if (field == nullptr || !field->is_string()) return Wrong(Name(key), "a string");
    value = field->get<std::string>();
    return absl::OkStatus();
  }
  absl::Status Numbers(const char* key, size_t least, size_t most, double largest,
                       std::vector<double>& values) const {
    ASSIGN_OR_RETURN(const json* list, List(key, least, most));
    for (size_t i = 0; i < list->size(); ++i) {
      const std::string name = fmt::format("{}[{}]", Name(key), i);
      if (!(*list)[i].is_number()) return Wrong(name, "a number");
      RETURN_IF_ERROR(Checked((*list)[i], name, 0, largest, values.emplace_back()));
    }
    return absl::OkStatus();
  }
  // Each entry of a list of objects.
  template <class Each>
  absl::Status Objects(const char* key, size_t least, size_t most, const Each& each) const {
    ASSIGN_OR_RETURN(const json* list, List(key, least, most));
    for (size_t i = 0; i < list->size(); ++i) {
      const std::string name = fmt::format("{}[{}]", Name(key), i);
      if (!(*list)[i].is_object()) return Wrong(name, "an object");
      RETURN_IF_ERROR(each(FieldsOf((*list)[i], name)));
    }
    return absl::OkStatus();
  }
  [[nodiscard]] std::string Name(const char* key) const {
    return name_.empty() ? key : name_ + "." + key;
  }

 private:
  [[nodiscard]] const json* Find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }
  [[nodiscard]] absl::StatusOr<const json*> List(const char* key, size_t least, size_t most) const {
    const json* field = Find(key);
    if (field == nullptr || !field->is_array() || field->size() < least || field->size() > most) {
      return Wrong(Name(key), fmt::format("a list of {} to {} entries", least, most));
    }
    return field;
  }
  static absl::Status Checked(const json& field, const std::string& name, double least, double most,
                              double& value) {
    const auto number = field.get<double>();
    if (!(number >= least && number <= most)) {
      return Wrong(name, fmt::format("between {:g} and {:g}", least, most));
    }
    value = number;
    return absl::OkStatus();
  }

  const json& object_;
  const std::string name_;
};

absl::Status ParseZone(const FieldsOf& fields, DirtyTrace& trace) {
  DirtyZone zone;
  uint64_t memory = 0;
  uint64_t contents = 0;
  RETURN_IF_ERROR(fields.Pages("memory_pages", 1, kMostPages, memory));
  RETURN_IF_ERROR(fields.Pages("contents_pages", 0, memory, contents));
  zone.memory = PageCount(memory);
  zone.contents = PageCount(contents);
  const size_t intervals = trace.intervals_ms.size();
  RETURN_IF_ERROR(
      fields.Numbers("written", intervals, intervals, static_cast<double>(memory), zone.written));
  for (size_t i = 1; i < intervals; ++i) {
    if (zone.written[i] < zone.written[i - 1]) {
      return Wrong(fields.Name("written"), "a list that never falls");
    }
  }
  trace.zones.push_back(std::move(zone));
  return absl::OkStatus();
}

absl::Status ParseActivity(const FieldsOf& fields, DirtyTrace& trace) {
  Activity activity;
  RETURN_IF_ERROR(fields.Number("ms", 1, kLongestMs, activity.ms));
  RETURN_IF_ERROR(fields.Number("busy", 0, 1e6, activity.busy));
  trace.activity.push_back(activity);
  return absl::OkStatus();
}

absl::Status ParseEpoch(const FieldsOf& fields, DirtyTrace& trace) {
  DirtyEpoch epoch;
  RETURN_IF_ERROR(fields.Number("start_ms", 0, kLongestMs, epoch.start_ms));
  RETURN_IF_ERROR(fields.Number("share", 1e-9, 1, epoch.share));
  if (!trace.timeline.empty() && epoch.start_ms < trace.timeline.back().start_ms) {
    return Wrong(fields.Name("start_ms"), "later than that of the epoch before");
  }
  RETURN_IF_ERROR(fields.Objects("samples", 0, kMostSamples, [&](const FieldsOf& sample) {
    DirtySample look;
    RETURN_IF_ERROR(sample.Number("ms", 0, kLongestMs, look.ms));
    RETURN_IF_ERROR(sample.Number("pages", 0, static_cast<double>(kMostPages), look.pages));
    if (!epoch.samples.empty() && look.ms <= epoch.samples.back().ms) {
      return Wrong(sample.Name("ms"), "later than that of the sample before");
    }
    epoch.samples.push_back(look);
    return absl::OkStatus();
  }));
  trace.timeline.push_back(std::move(epoch));
  return absl::OkStatus();
}

absl::Status ParseHotBlock(const FieldsOf& fields, DirtyTrace& trace) {
  HotBlock block;
  RETURN_IF_ERROR(fields.Text("region", block.region));
  RETURN_IF_ERROR(fields.Pages("first_page", 0, kMostPages, block.first_page));
  RETURN_IF_ERROR(fields.Pages("pages", 1, kMostPages, block.pages));
  RETURN_IF_ERROR(fields.Number("written", 0, static_cast<double>(block.pages), block.written));
  trace.hottest.push_back(std::move(block));
  return absl::OkStatus();
}

absl::StatusOr<DirtyTrace> ParseObject(const json& object) {
  const FieldsOf fields(object, "");
  DirtyTrace trace;
  std::string format;
  double version = 0;
  if (!fields.Text("format", format).ok() || format != kFormatName) {
    return Wrong("format",
                 fmt::format("\"{}\": is this the file of `ramferry wws --trace`?", kFormatName));
  }
  if (!fields.Number("version", kVersion, kVersion, version).ok()) {
    return Wrong("version", fmt::format("{}: this ramferry knows no other", kVersion));
  }
  uint64_t page_bytes = 0;
  RETURN_IF_ERROR(fields.Pages("page_bytes", 0, kMostPages, page_bytes));
  if (page_bytes != kPageBytes) return Wrong("page_bytes", fmt::format("{}", kPageBytes));
  RETURN_IF_ERROR(fields.Text("guest", trace.guest));
  RETURN_IF_ERROR(fields.Text("origin", trace.origin));
  RETURN_IF_ERROR(
      fields.Numbers("intervals_ms", 1, kMostIntervals, kLongestMs, trace.intervals_ms));
  for (size_t i = 0; i < trace.intervals_ms.size(); ++i) {
    if (trace.intervals_ms[i] <= (i == 0 ? 0 : trace.intervals_ms[i - 1])) {
      return Wrong("intervals_ms", "ascending, from more than 0 on");
    }
  }
  RETURN_IF_ERROR(
      fields.Numbers("blocks", 0, kMostIntervals, static_cast<double>(kMostPages), trace.blocks));
  if (!trace.blocks.empty() && trace.blocks.size() != trace.intervals_ms.size()) {
    return Wrong("blocks", "empty, or as long as intervals_ms");
  }
  RETURN_IF_ERROR(fields.Objects(
      "zones", 1, kMostZones, [&trace](const FieldsOf& zone) { return ParseZone(zone, trace); }));
  RETURN_IF_ERROR(fields.Objects("activity", 0, kMostSamples, [&trace](const FieldsOf& activity) {
    return ParseActivity(activity, trace);
  }));
  RETURN_IF_ERROR(fields.Objects("timeline", 0, kMostEpochs, [&trace](const FieldsOf& epoch) {
    return ParseEpoch(epoch, trace);
  }));
  RETURN_IF_ERROR(fields.Objects("hottest", 0, kMostZones, [&trace](const FieldsOf& block) {
    return ParseHotBlock(block, trace);
  }));
  return trace;
}

}  // namespace

PageCount DirtyTrace::memory() const {
  PageCount pages;
  for (const DirtyZone& zone : zones) pages += zone.memory;
  return pages;
}

PageCount DirtyTrace::contents() const {
  PageCount pages;
  for (const DirtyZone& zone : zones) pages += zone.contents;
  return pages;
}

double DirtyTrace::WrittenIn(size_t interval) const {
  double pages = 0;
  for (const DirtyZone& zone : zones) pages += zone.written[interval];
  return pages;
}

GrowthCurve DirtyTrace::Curve() const {
  std::vector<GrowthPoint> points;
  points.reserve(intervals_ms.size());
  for (size_t i = 0; i < intervals_ms.size(); ++i) {
    points.push_back({intervals_ms[i] / 1000, WrittenIn(i)});
  }
  const auto most = static_cast<double>(memory().value());
  const double bend = GrowthCurve::BendOf(GrowthCurve(points, most, 1));
  return {std::move(points), most, bend};
}

std::vector<GrowthCurve> DirtyTrace::ZoneCurves() const {
  const double bend = GrowthCurve::BendOf(Curve());
  std::vector<GrowthCurve> curves;
  curves.reserve(zones.size());
  for (const DirtyZone& zone : zones) {
    std::vector<GrowthPoint> points;
    points.reserve(intervals_ms.size());
    for (size_t i = 0; i < intervals_ms.size(); ++i) {
      points.push_back({intervals_ms[i] / 1000, zone.written[i]});
    }
    curves.emplace_back(std::move(points), static_cast<double>(zone.memory.value()), bend);
  }
  return curves;
}

absl::StatusOr<DirtyTrace> ParseDirtyTrace(std::string_view text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return absl::InvalidArgumentError("it is not a JSON object");
  return ParseObject(object);
}

std::string FormatDirtyTrace(const DirtyTrace& trace) {
  ordered_json zones = ordered_json::array();
  for (const DirtyZone& zone : trace.zones) {
    zones.push_back({{"memory_pages", zone.memory.value()},
                     {"contents_pages", zone.contents.value()},
                     {"written", zone.written}});
  }
  ordered_json activities = ordered_json::array();
  for (const Activity& activity : trace.activity) {
    activities.push_back({{"ms", activity.ms}, {"busy", activity.busy}});
  }
  ordered_json timeline = ordered_json::array();
  for (const DirtyEpoch& epoch : trace.timeline) {
    ordered_json samples = ordered_json::array();
    for (const DirtySample& sample : epoch.samples) {
      samples.push_back({{"ms", sample.ms}, {"pages", sample.pages}});
    }
    timeline.push_back(
        {{"start_ms", epoch.start_ms}, {"share", epoch.share}, {"samples", samples}});
  }
  ordered_json hottest = ordered_json::array();
  for (const HotBlock& block : trace.hottest) {
    hottest.push_back({{"region", block.region},
                       {"first_page", block.first_page},
                       {"pages", block.pages},
                       {"written", block.written}});
  }
  const ordered_json object = {
      {"format", kFormatName},  {"version", kVersion},    {"page_bytes", kPageBytes},
      {"guest", trace.guest},   {"origin", trace.origin}, {"intervals_ms", trace.intervals_ms},
      {"blocks", trace.blocks}, {"zones", zones},         {"activity", activities},
      {"timeline", timeline},   {"hottest", hottest}};
  return object.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace ramferry
