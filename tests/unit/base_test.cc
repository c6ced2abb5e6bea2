#include <poll.h>

#include "base/cancellation.h"
#include "base/page_run.h"
#include "base/units.h"
#include "gtest/gtest.h"

namespace ramferry {
namespace {

TEST(Units, pages_cover_a_partly_used_page) {
  EXPECT_EQ(PagesCovering(ByteCount(1)), PageCount(1));
  EXPECT_EQ(PagesCovering(ByteCount(4096)), PageCount(1));
  EXPECT_EQ(PagesCovering(ByteCount(4097)), PageCount(2));
  EXPECT_EQ(BytesIn(PageCount(3)), ByteCount(12288));
}

TEST(PageRuns, touching_runs_are_joined_and_empty_ones_left_out) {
  PageRuns runs;
  AppendRun(runs, {0, 2});
  AppendRun(runs, {2, 0});
  AppendRun(runs, {2, 3});
  AppendRun(runs, {6, 1});
  EXPECT_EQ(runs, (PageRuns{{0, 5}, {6, 1}}));
  EXPECT_EQ(PagesIn(runs), PageCount(6));
}

TEST(Cancellation, first_reason_wins_and_wakes_a_poll) {
  Cancellation cancel;
  EXPECT_TRUE(cancel.status().ok());
  cancel.Request("first");
  cancel.Request("second");
  EXPECT_EQ(cancel.status().message(), "first");
  pollfd waiting{.fd = cancel.fd(), .events = POLLIN};
  EXPECT_EQ(::poll(&waiting, 1, 0), 1);
}

}  // namespace
}  // namespace ramferry
