// The network interfaces of this host.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/local_interface.h"

namespace ramferry {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;

TEST(LocalInterface, the_way_to_this_host_is_the_loopback) {
  EXPECT_EQ(InterfaceTowards("127.0.0.1"), "lo");
  EXPECT_EQ(InterfaceTowards("not an address"), "");
}

TEST(LocalInterface, an_interface_has_addresses) {
  EXPECT_THAT(AddressesOfInterface("lo"), Contains("127.0.0.1"));
  EXPECT_THAT(AddressesOfInterface("no such interface"), IsEmpty());
}

}  // namespace
}  // namespace ramferry
