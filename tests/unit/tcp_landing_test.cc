// Where pages land at the destination: what is there must not be lost, and no memory is an error.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/tcp_test_guest.h"
#include "transport/tcp/landing.h"

namespace ramferry {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kHuge = uint64_t{2} << 20;

// A file that cannot be written with pwrite(2), as on hugetlbfs. Of its two huge pages the second
// cannot be had: writing to it by the mapping would end this process.
class ScarceMemory : public ::testing::Test {
 protected:
  ScarceMemory() {
    memory_.FillRandomly(1);
    EXPECT_EQ(::ftruncate(regions_.front().fd, kHuge), 0);
  }
  static MappedRegion Huge(MappedRegion region) {
    region.description.backing_page_size = ByteCount(kHuge);
    return region;
  }
  static void ExpectNoMemory(const absl::Status& status) {
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("no memory for guest memory ram"));
  }

  TestMemory memory_{TestMemory::Kind::kFile, 2 * kHuge / kPageBytes};
  const std::vector<MappedRegion> regions_ = {Huge(memory_.region())};
  const std::vector<std::byte> page_ = std::vector<std::byte>(kPageBytes, std::byte{7});
  tcp::Landing landing_{regions_};
};

TEST_F(ScarceMemory, a_page_for_which_there_is_no_memory_is_an_error) {
  ASSERT_TRUE(landing_.Write(0, kHuge - kPageBytes, page_).ok());
  EXPECT_EQ(memory_.data()[kHuge - 1], std::byte{7});
  ExpectNoMemory(landing_.Write(0, kHuge, page_));
}

TEST_F(ScarceMemory, so_is_a_part_of_a_huge_page_that_becomes_zero) {
  ASSERT_TRUE(landing_.Zero(0, kHuge - kPageBytes, kPageBytes).ok());
  EXPECT_EQ(memory_.data()[kHuge - 1], std::byte{0});
  ExpectNoMemory(landing_.Zero(0, kHuge, kPageBytes));
}

}  // namespace
}  // namespace ramferry
