// What happens to a device or a connection in the middle of a migration: the channel fails, and
// says what it was. That the migration then goes on over TCP: engine_rdma_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <variant>

#include "tests/unit/rdma_pair.h"

namespace ramferry::rdma {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

struct Case {
  const char* name;
  std::variant<ibv_event_type, rdma_cm_event_type> event;
  const char* words;
};

const Case kEvents[] = {
    {"port_down", IBV_EVENT_PORT_ERR, "port 1 of RDMA device double went down"},
    {"queue_pair_fatal", IBV_EVENT_QP_FATAL, "double gave up the queue pair"},
    {"queue_pair_request_error", IBV_EVENT_QP_REQ_ERR, "double gave up the queue pair"},
    {"queue_pair_access_error", IBV_EVENT_QP_ACCESS_ERR, "double gave up the queue pair"},
    {"completion_queue_overrun", IBV_EVENT_CQ_ERR, "completion queue overran"},
    {"gid_gone", IBV_EVENT_GID_CHANGE, "has lost the address (GID) in use"},
    {"lid_changed", IBV_EVENT_LID_CHANGE, "another LID"},
    {"device_fatal", IBV_EVENT_DEVICE_FATAL, "device double failed or was removed"},
    {"device_removed", RDMA_CM_EVENT_DEVICE_REMOVAL, "the RDMA device was removed"},
    {"address_changed", RDMA_CM_EVENT_ADDR_CHANGE, "the address of the RDMA device changed"},
    {"disconnected", RDMA_CM_EVENT_DISCONNECTED, "the peer closed the RDMA connection"},
};

// The device says so of this link's queue pair and port; requests under way come back undone.
void Strike(FakeLink& link, const Case& what) {
  if (const auto* connection = std::get_if<rdma_cm_event_type>(&what.event)) {
    link.Happen(*connection);
    return;
  }
  ibv_async_event event{};
  event.event_type = std::get<ibv_event_type>(what.event);
  switch (event.event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
      event.element.qp = &link.queue_pair;
      link.BreakQueue();
      break;
    case IBV_EVENT_CQ_ERR:
      event.element.cq = &link.completion_queue;
      break;
    default:
      event.element.port_num = FakeLink::kPort;
      link.has_its_gid = false;
  }
  link.Happen(event);
}

class RdmaEvents : public RdmaChannelTest, public ::testing::WithParamInterface<Case> {};
INSTANTIATE_TEST_SUITE_P(Each, RdmaEvents, ::testing::ValuesIn(kEvents),
                         [](const auto& each) { return std::string(each.param.name); });

TEST_P(RdmaEvents, while_pages_are_flushed_fails_the_channel_with_words) {
  Open();
  source_.Fill(0, 1);
  const PageWrite write = source_.Write(0);
  ASSERT_TRUE(channel().Write({&write, 1}).ok());
  link().on_wait = [this] { Strike(link(), GetParam()); };
  const absl::Status status = channel().Flush(In(seconds(10)));
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().words));
  EXPECT_EQ(channel().Write({&write, 1}), status);
  EXPECT_EQ(channel().Flush(In(seconds(1))), status);
}

TEST_P(RdmaEvents, while_the_queue_is_full_fails_the_channel_with_words) {
  Open();
  link().hold_local_completions = true;
  std::vector<PageWrite> writes;
  for (uint64_t page = 0; page < 2048; page += 2) writes.push_back(source_.Write(page));
  ASSERT_TRUE(channel().Write({writes.data(), 1}).ok());  // opens the piece
  link().on_wait = [this] { Strike(link(), GetParam()); };
  const absl::Status status = channel().Write(writes);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().words));
  EXPECT_EQ(channel().Flush(In(seconds(1))), status);
}

// A worker of another channel must not wait for pieces that nobody will open any more.
TEST_P(RdmaEvents, fails_the_other_channels_of_the_migration) {
  Open(2);
  source_.Fill(0, 1);
  const PageWrite write = source_.Write(0);
  link().on_wait = [this] { Strike(link(), GetParam()); };
  ASSERT_FALSE(channel().Write({&write, 1}).ok());  // while it opens the piece
  const absl::Status status = pairs_[1]->channel->Write({&write, 1});
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().words));
}

TEST_P(RdmaEvents, ends_the_destinations_service_with_words) {
  Open();
  Pair& pair = *pairs_[0];
  Strike(*pair.destination, GetParam());
  const absl::Status status = pair.service->Serve();
  EXPECT_FALSE(status.ok());
  if (!std::holds_alternative<ibv_event_type>(GetParam().event) ||
      std::get<ibv_event_type>(GetParam().event) == IBV_EVENT_PORT_ERR) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().words));
  }
}

TEST_F(RdmaChannelTest, events_that_concern_others_change_nothing) {
  Open();
  source_.Fill(0, 1);
  const PageWrite write = source_.Write(0);
  ibv_qp other_queue_pair{};
  ibv_cq other_queue{};
  ibv_async_event event{};
  const auto happens = [&](ibv_event_type type) {
    event.event_type = type;
    link().Happen(event);
  };
  event.element.qp = &other_queue_pair;
  happens(IBV_EVENT_QP_FATAL);
  event.element.cq = &other_queue;
  happens(IBV_EVENT_CQ_ERR);
  event.element.port_num = FakeLink::kPort + 1;
  happens(IBV_EVENT_PORT_ERR);
  happens(IBV_EVENT_LID_CHANGE);
  event.element.port_num = FakeLink::kPort;
  happens(IBV_EVENT_GID_CHANGE);  // another one: this one is still there
  happens(IBV_EVENT_PORT_ACTIVE);
  happens(IBV_EVENT_SM_CHANGE);
  link().Happen(RDMA_CM_EVENT_ESTABLISHED);
  ASSERT_TRUE(channel().Write({&write, 1}).ok());
  ASSERT_TRUE(channel().Flush(In(seconds(10))).ok());
  EXPECT_TRUE(Same(0));
}

}  // namespace
}  // namespace ramferry::rdma
