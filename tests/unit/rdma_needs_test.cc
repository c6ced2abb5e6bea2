// What is asked of devices and limits before the guest is touched.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "transport/rdma/check.h"
#include "transport/rdma/needs.h"

namespace ramferry::rdma {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

MappedRegion Region(ByteCount size, ByteCount backing = KiB(4), bool can_register = true) {
  return {.description = {.name = "ram", .size = size, .backing_page_size = backing},
          .can_register = can_register};
}

RdmaNeeds Needs(const MappedRegion& region, size_t channels, ByteCount budget = ByteCount(0)) {
  return NeedsOf({&region, 1}, budget, channels);
}

DeviceLimits Device(uint64_t most, uint64_t largest = UINT64_MAX) {
  return {.name = "rdma7", .largest_registration = largest, .most_registrations = most};
}

std::string Refusal(const DeviceLimits& device, const RdmaNeeds& needs) {
  const absl::Status status = CheckDevice(device, needs);
  EXPECT_TRUE(status.ok() || absl::IsFailedPrecondition(status)) << status;
  return std::string(status.message());
}

TEST(RdmaNeeds, too_few_registrations_are_refused_with_what_to_do) {
  const RdmaNeeds needs = Needs(Region(GiB(4)), 4);
  EXPECT_EQ(Refusal(Device(20), needs), "");
  EXPECT_THAT(Refusal(Device(19), needs),
              AllOf(HasSubstr("rdma7 allows 19 registrations (max_mr)"),
                    HasSubstr("4 page channels take at least 20"), HasSubstr("fewer --workers")));
  EXPECT_EQ(Refusal(Device(19), Needs(Region(GiB(4)), 3)), "");
  EXPECT_EQ(PiecesWithin(20, 4), 4U);
  EXPECT_EQ(PiecesWithin(16, 4), 0U);
}

TEST(RdmaNeeds, registrations_that_are_too_small_are_refused_with_what_to_do) {
  EXPECT_EQ(Refusal(Device(100, MiB(1).value()), Needs(Region(GiB(4)), 1)), "");
  EXPECT_THAT(Refusal(Device(100, KiB(512).value()), Needs(Region(GiB(4)), 1)),
              AllOf(HasSubstr("rdma7 registers at most 512 KiB at once (max_mr_size)"),
                    HasSubstr("takes 1024 KiB"), HasSubstr("--transport tcp")));
  EXPECT_THAT(Refusal(Device(100, MiB(512).value()), Needs(Region(GiB(4), GiB(1)), 1)),
              HasSubstr("huge pages"));
  // The staging ring is registered in one.
  EXPECT_THAT(Refusal(Device(100, MiB(4).value()), Needs(Region(GiB(4), KiB(4), false), 1)),
              HasSubstr("takes 8192 KiB"));
}

TEST(RdmaNeeds, what_a_device_does_not_say_is_no_limit) {
  ibv_device_attr attributes{};
  attributes.max_mr = -1;  // a larger number than the field holds
  EXPECT_EQ(Refusal(LimitsOf("rdma7", attributes), Needs(Region(GiB(4)), 8)), "");
  attributes.max_mr = 7;
  attributes.max_mr_size = 4096;
  const DeviceLimits limits = LimitsOf("rdma7", attributes);
  EXPECT_EQ(limits.most_registrations, 7U);
  EXPECT_EQ(limits.largest_registration, 4096U);
}

TEST(RdmaNeeds, what_may_not_be_pinned_is_refused_with_what_to_do) {
  const auto refused = [](std::optional<ByteCount> limit, const RdmaNeeds& needs) {
    return std::string(CheckPinning(limit, needs).message());
  };
  const MappedRegion guest = Region(MiB(64));
  EXPECT_EQ(refused(std::nullopt, Needs(guest, 2)), "");
  EXPECT_EQ(refused(MiB(65), Needs(guest, 2)), "");
  EXPECT_THAT(refused(MiB(64), Needs(guest, 2)),  // not for the messages as well
              AllOf(HasSubstr("pin 64 MiB of guest memory and 1 MiB for 2 page channels"),
                    HasSubstr("RLIMIT_MEMLOCK is 65536 KiB: raise it"),
                    HasSubstr("--pin-budget below it")));
  EXPECT_EQ(refused(MiB(64), Needs(guest, 2, MiB(16))), "");
  EXPECT_NE(refused(MiB(16), Needs(guest, 2, MiB(16))), "");
  // Memory that is not registered is not pinned, but its rings are.
  const MappedRegion ballooned = Region(MiB(64), KiB(4), false);
  EXPECT_EQ(refused(MiB(17), Needs(ballooned, 2)), "");
  EXPECT_NE(refused(MiB(16), Needs(ballooned, 2)), "");
}

TEST(RdmaNeeds, a_limit_bounds_what_several_devices_pin_together) {
  const RdmaNeeds needs = Needs(Region(MiB(64)), 2);
  EXPECT_EQ(BudgetWithin(std::nullopt, ByteCount(0), needs), ByteCount(0));
  const ByteCount within = BudgetWithin(MiB(80), ByteCount(0), needs);
  EXPECT_GE(within, MiB(64));
  EXPECT_LE(within + needs.beside, MiB(80));
  EXPECT_EQ(BudgetWithin(MiB(80), MiB(16), needs), MiB(16));
}

RdmaReport Report(const DeviceLimits& limits, bool active = true) {
  RdmaReport report;
  report.devices.push_back({.name = limits.name, .limits = limits, .ports = {{.active = active}}});
  return report;
}

TEST(RdmaNeeds, one_device_that_is_enough_is_enough) {
  const RdmaNeeds needs = Needs(Region(GiB(4)), 4);
  RdmaReport report = Report(Device(19));
  EXPECT_THAT(std::string(CheckDevices(report, needs).message()), HasSubstr("rdma7 allows 19"));
  report.devices.push_back({.name = "down", .limits = Device(1000), .ports = {{.active = false}}});
  EXPECT_FALSE(CheckDevices(report, needs).ok());
  report.devices.push_back({.name = "good", .limits = Device(1000), .ports = {{.active = true}}});
  EXPECT_TRUE(CheckDevices(report, needs).ok());
}

TEST(RdmaNeeds, check_tells_what_is_in_the_way_and_what_to_do) {
  const auto problem = [](const std::string& what, const std::string& fix) {
    return AllOf(Field(&RdmaProblem::what, HasSubstr(what)),
                 Field(&RdmaProblem::fix, HasSubstr(fix)));
  };
  const RdmaNeeds any = NeedsOf({}, ByteCount(0), 4);
  const RdmaNeeds guest = Needs(Region(GiB(4)), 4);  // 64 pieces
  EXPECT_THAT(ProblemsFor(Report(Device(1000)), guest), IsEmpty());
  EXPECT_THAT(ProblemsFor(Report(Device(19)), any),
              ElementsAre(problem("rdma7 allows 19 registrations", "fewer --workers")));
  EXPECT_THAT(ProblemsFor(Report(Device(30)), guest),
              ElementsAre(problem("room for 14 pieces of guest memory, and this guest has 64",
                                  "registered again")));
  RdmaReport limited = Report(Device(1000));
  limited.pin_limit = MiB(8);
  EXPECT_THAT(ProblemsFor(limited, guest),
              ElementsAre(problem("RDMA needs to pin 4096 MiB", "raise it")));
  EXPECT_THAT(ProblemsFor(limited, any),
              ElementsAre(problem("only 8 MiB may be pinned", "LimitMEMLOCK")));
  EXPECT_THAT(ProblemsFor(limited, NeedsOf({}, MiB(4), 4)), IsEmpty());
}

}  // namespace
}  // namespace ramferry::rdma
