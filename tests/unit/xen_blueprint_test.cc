#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/xen/blueprint.h"
#include "nlohmann/json.hpp"

namespace ramferry {
namespace {

using nlohmann::json;
using testing::ElementsAre;

XenBlueprint Sample() {
  return {.uuid = "dbeffde4-f55a-43d9-890f-9c7676198eb6",
          .configuration = R"({"c_info":{"name":"gäste"}})",
          .xen_major = 4,
          .xen_minor = 17,
          .cpuid_policy = std::string("\x00\xff\x7f", 3),
          .msr_policy = "m",
          .ram = {{0, 0x8000}, {0xfeff8, 8}}};
}

TEST(XenBlueprintTest, what_was_formatted_is_parsed) {
  const auto parsed = ParseBlueprint(FormatBlueprint(Sample()));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, Sample());
}

TEST(XenBlueprintTest, a_blueprint_that_lies_is_refused) {
  const json good = json::parse(FormatBlueprint(Sample()));
  const std::vector<std::pair<std::string, json>> lies = {
      {"uuid", "../../etc/passwd"},
      {"uuid", 7},
      {"configuration", nullptr},
      {"xen", {4}},
      {"xen", {4, -1}},
      {"cpuid", "0"},
      {"msrs", "zz"},
      {"ram", json::array()},
      {"ram", {{0, 0}}},
      {"ram", {{8, 8}, {0, 8}}},
      {"ram", {{0, 16}, {8, 16}}},
      {"ram", {{0, uint64_t{1} << 60}}},
      {"ram", {{~uint64_t{0}, 2}}},
      {"ram", {{0, 1, 2}}},
  };
  for (const auto& [key, lie] : lies) {
    json blueprint = good;
    blueprint[key] = lie;
    EXPECT_FALSE(ParseBlueprint(blueprint.dump()).ok()) << blueprint.dump();
    blueprint.erase(key);
    EXPECT_FALSE(ParseBlueprint(blueprint.dump()).ok()) << "without " << key;
  }
  for (const char* text : {"", "[]", "{", "null"}) EXPECT_FALSE(ParseBlueprint(text).ok()) << text;
}

TEST(XenBlueprintTest, frames_close_together_are_one_region_with_holes) {
  const auto ranges = GroupFrames({{0, 0xa0}, {0xc0, 0x7f40}, {0xfc000, 9}, {0xfeff8, 8}});
  ASSERT_EQ(ranges.size(), 2U);
  EXPECT_EQ(ranges[0].first, 0U);
  EXPECT_EQ(ranges[0].pages, 0x8000U);
  EXPECT_THAT(ranges[0].ram, ElementsAre(PageRun{0, 0xa0}, PageRun{0xc0, 0x7f40}));
  EXPECT_EQ(ranges[1].first, 0xfc000U);
  EXPECT_EQ(ranges[1].pages, 0x3000U);
  EXPECT_THAT(ranges[1].ram, ElementsAre(PageRun{0, 9}, PageRun{0x2ff8, 8}));
}

}  // namespace
}  // namespace ramferry
