// Whole migrations whose RDMA channels fail, over a device that is played: they go on over TCP.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "tests/unit/engine_site.h"
#include "tests/unit/rdma_double.h"
#include "transport/rdma/landing.h"
#include "transport/rdma/rdma_channel.h"

namespace ramferry::rdma {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

// "rdma" between two hosts of one process, with one channel: all of it is done by the thread that
// uses the channel.
class PlayedRdma : public ChannelConnector, public ChannelListener {
 public:
  [[nodiscard]] std::string transport() const override { return "rdma"; }

  absl::StatusOr<std::unique_ptr<ChannelReceiver>> Expect(
      std::span<const MappedRegion> regions, std::span<const ChannelPlace> /*channels*/) override {
    landing_ = std::make_unique<Landing>(regions, destination_memory, ByteCount(0));
    return std::make_unique<Receiver>(*landing_);
  }

  absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> Connect(
      const ChannelOffer& /*offer*/, std::span<const MappedRegion> source,
      Deadline /*deadline*/) override {
    const PieceLimits limits{
        .budget = ByteCount(0), .largest_piece = MiB(2).value(), .most_pieces = 64, .channels = 1};
    ASSIGN_OR_RETURN(table_, PieceTable::Create(source, source_memory, limits));
    auto near = std::make_unique<FakeLink>(destination_memory);
    auto far = std::make_unique<FakeLink>(source_memory);
    link = near.get();
    link->ConnectTo(*far);
    far->ConnectTo(*link);
    far->deliver_at_once = true;
    ASSIGN_OR_RETURN(service_,
                     ChannelService::Create(std::move(far), destination_memory, *landing_));
    ASSIGN_OR_RETURN(auto channel, RdmaChannel::Create(nullptr, std::move(near), source_memory));
    channel->UseTable(*table_);
    link->on_poll = [this] {
      if (before_poll != nullptr) before_poll();
    };
    link->on_wait = [this] {
      link->CompleteLocally();
      link->Deliver();
      if (served_.ok()) served_ = service_->ServeSome(goodbye_);
    };
    std::vector<std::unique_ptr<PageChannel>> channels;
    channels.push_back(std::move(channel));
    return channels;
  }

  FakeMemory source_memory;
  FakeMemory destination_memory;
  FakeLink* link = nullptr;
  std::function<void()> before_poll;

 private:
  class Receiver : public ChannelReceiver {
   public:
    explicit Receiver(Landing& landing) : landing_(landing) {}
    ~Receiver() override { Stop(); }
    [[nodiscard]] const ChannelOffer& offer() const override { return offer_; }
    [[nodiscard]] absl::Status status() const override { return absl::OkStatus(); }
    [[nodiscard]] ChannelStats stats() const override { return {}; }
    void Stop() override { landing_.Close(); }

   private:
    Landing& landing_;
    const ChannelOffer offer_{
        .transport = "rdma", .address = "192.0.2.1", .port = 1, .tokens = {"t"}};
  };

  std::unique_ptr<Landing> landing_;
  std::unique_ptr<PieceTable> table_;
  std::unique_ptr<ChannelService> service_;
  bool goodbye_ = false;
  absl::Status served_;
};

struct Loss {
  const char* name;
  ibv_event_type event;
  const char* words;
};

class RdmaIsLost : public ::testing::TestWithParam<Loss> {
 protected:
  RdmaIsLost() {
    site_.options.workers = 1;
    site_.better_connector = &rdma_;
    site_.better_listener = &rdma_;
  }

  // What is under way then comes back undone, and nothing that is on the wire arrives.
  void Strike() {
    if (struck_) return;
    struck_ = true;
    ibv_async_event event{};
    event.event_type = GetParam().event;
    rdma_.link->has_its_gid = false;
    if (event.event_type == IBV_EVENT_QP_FATAL) {
      event.element.qp = &rdma_.link->queue_pair;
      rdma_.link->BreakQueue();
    } else {
      event.element.port_num = FakeLink::kPort;
    }
    rdma_.link->LoseWire();
    rdma_.link->Happen(event);
  }

  void ExpectMovedOverTcp(const MigrationReport& report) {
    EXPECT_TRUE(struck_) << "it was over before";
    site_.ExpectMigrated(report);  // and that the image is the same, bit by bit
    EXPECT_EQ(report.transport, "tcp");
    EXPECT_THAT(site_.notes(),
                Contains(AllOf(HasSubstr("rdma has failed ("), HasSubstr(GetParam().words),
                               HasSubstr("going on over another transport"))));
  }

  PlayedRdma rdma_;
  MigrationSite site_;
  bool struck_ = false;
};

const Loss kLosses[] = {
    {"port_down", IBV_EVENT_PORT_ERR, "went down"},
    {"queue_pair_fatal", IBV_EVENT_QP_FATAL, "gave up the queue pair"},
    {"gid_gone", IBV_EVENT_GID_CHANGE, "has lost the address (GID) in use"},
    {"device_gone", IBV_EVENT_DEVICE_FATAL, "failed or was removed"},
};
INSTANTIATE_TEST_SUITE_P(Each, RdmaIsLost, ::testing::ValuesIn(kLosses),
                         [](const auto& each) { return std::string(each.param.name); });

TEST_P(RdmaIsLost, in_round_1_and_the_round_goes_on_over_tcp) {
  rdma_.before_poll = [this] {
    if (rdma_.link->write_lengths.size() > 20) Strike();
  };
  const MigrationReport report = site_.Migrate();
  ExpectMovedOverTcp(report);
  EXPECT_EQ(report.rounds.front().number, 1U);
}

// Everything that the guest wrote last is still on this host, or under way.
TEST_P(RdmaIsLost, while_the_guest_stands_still_and_its_last_pages_go_over_tcp) {
  size_t written = 0;
  site_.on_source = [&](std::string_view call) {
    if (call == "WaitPaused") written = rdma_.link->write_lengths.size();
    return absl::OkStatus();
  };
  rdma_.before_poll = [&] {
    // Some of them have left.
    if (!site_.guest().running() && rdma_.link->write_lengths.size() > written) Strike();
  };
  const MigrationReport report = site_.Migrate();
  ExpectMovedOverTcp(report);
  EXPECT_TRUE(report.rounds.back().stopped);
}

class RdmaRunsOut : public testing::Test {
 protected:
  RdmaRunsOut() {
    site_.options.workers = 1;
    site_.better_connector = &rdma_;
    site_.better_listener = &rdma_;
  }
  void ExpectMovedOverTcpBecause(const char* why) {
    const MigrationReport report = site_.Migrate();
    site_.ExpectMigrated(report);
    EXPECT_EQ(report.transport, "tcp");
    EXPECT_THAT(site_.notes(), Contains(HasSubstr(why)));
  }

  PlayedRdma rdma_;
  MigrationSite site_;
};

// The device of the destination has none left for the next piece.
TEST_F(RdmaRunsOut, of_registrations_at_the_destination_and_the_round_goes_on_over_tcp) {
  rdma_.destination_memory.most = 4;  // messages, the proof, two pieces of 2 MiB
  ExpectMovedOverTcpBecause("the destination says: cannot register");
}

TEST_F(RdmaRunsOut, of_registrations_at_the_source_and_the_round_goes_on_over_tcp) {
  rdma_.source_memory.most = 3;  // messages, two pieces
  ExpectMovedOverTcpBecause("cannot register 2 MiB");
}

}  // namespace
}  // namespace ramferry::rdma
