// The choice between transports, where a whole migration cannot show it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/status.h"
#include "engine/transport_choice.h"
#include "hypervisor-glue/synthetic/synthetic_guest.h"
#include "tests/unit/fake_control_channel.h"
#include "tests/unit/fake_page_channel.h"

namespace ramferry {
namespace {

class NamedConnector : public ChannelConnector {
 public:
  explicit NamedConnector(std::string name) : name_(std::move(name)) {}
  std::string transport() const override { return name_; }
  absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> Connect(const ChannelOffer&,
                                                                    std::span<const MappedRegion>,
                                                                    Deadline) override {
    return absl::UnavailableError("no network here");
  }

 private:
  const std::string name_;
};

// Connected, and then nothing comes back.
class SilentChannel : public FakePageChannel {
 public:
  explicit SilentChannel(std::function<void()> flushed) : flushed_(std::move(flushed)) {}
  absl::Status Flush(Deadline /*deadline*/) override {
    flushed_();
    aborted_.wait(false);
    return absl::CancelledError("the channel was aborted");
  }
  void Abort() override {
    aborted_ = true;
    aborted_.notify_all();
  }

 private:
  const std::function<void()> flushed_;
  std::atomic<bool> aborted_{false};
};
class SilentConnector : public ChannelConnector {
 public:
  explicit SilentConnector(std::function<void()> flushed) : flushed_(std::move(flushed)) {}
  std::string transport() const override { return "first"; }
  absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> Connect(const ChannelOffer&,
                                                                    std::span<const MappedRegion>,
                                                                    Deadline) override {
    std::vector<std::unique_ptr<PageChannel>> channels;
    channels.push_back(std::make_unique<SilentChannel>(flushed_));
    return channels;
  }

 private:
  const std::function<void()> flushed_;
};

// And no other transport is tried then.
TEST(TransportChoice, cancellation_ends_the_wait_for_a_channel_that_brings_nothing_back) {
  const auto guest = *SyntheticGuest::Create({.name = "web1", .regions = {{"ram", MiB(1)}}});
  FakeControlPair control;
  MigrationObserver observer;
  Cancellation cancel;
  SilentConnector first([&cancel] { cancel.Request("interrupted"); });
  NamedConnector second("second");
  const MigrationOptions options;
  const std::vector<ChannelConnector*> connectors = {&first, &second};
  TransportChoice choice(*guest, control.source(), connectors, observer, options, cancel);
  choice.SetOffers({{.transport = "first", .address = "192.0.2.1"},
                    {.transport = "second", .address = "192.0.2.1"}});
  EXPECT_EQ(choice.Connect().status(), absl::CancelledError("interrupted"));
}

TEST(TransportChoice, cancellation_ends_the_wait_for_a_destination_that_says_nothing) {
  const auto guest = *SyntheticGuest::Create({.name = "web1", .regions = {{"ram", MiB(1)}}});
  FakeControlPair control;
  NamedConnector first("first");
  NamedConnector second("second");
  MigrationObserver observer;
  Cancellation cancel;
  const MigrationOptions options{.answer_time = std::chrono::milliseconds(500)};
  const std::vector<ChannelConnector*> connectors = {&first, &second};
  TransportChoice choice(*guest, control.source(), connectors, observer, options, cancel);
  choice.SetOffers({{.transport = "second"}});
  cancel.Request("interrupted");
  const auto channels = choice.Replace(absl::UnavailableError("it broke"));
  EXPECT_TRUE(absl::IsCancelled(channels.status())) << channels.status();
  EXPECT_THAT(control.Sent(FakeControlPair::kToDestination), testing::ElementsAre("DropTransport"));
}

// Takes offers of several kinds, and works or not.
class TakingConnector : public ChannelConnector {
 public:
  TakingConnector(std::string name, std::vector<std::string> takes, bool works)
      : name_(std::move(name)), takes_(std::move(takes)), works_(works) {}
  std::string transport() const override { return name_; }
  std::vector<std::string> takes() const override { return takes_; }
  absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> Connect(const ChannelOffer& offer,
                                                                    std::span<const MappedRegion>,
                                                                    Deadline) override {
    tried.push_back(offer.transport + " " + offer.address);
    if (!works_) return absl::UnavailableError("no network here");
    std::vector<std::unique_ptr<PageChannel>> channels;
    channels.push_back(std::make_unique<FakePageChannel>());
    return channels;
  }

  std::vector<std::string> tried;

 private:
  const std::string name_;
  const std::vector<std::string> takes_;
  const bool works_;
};

class TransportOrder : public ::testing::Test {
 protected:
  TransportOrder()
      : guest_(*SyntheticGuest::Create({.name = "web1", .regions = {{"ram", MiB(1)}}})) {}

  const std::unique_ptr<SyntheticGuest> guest_;
  FakeControlPair control_;
  MigrationObserver observer_;
  Cancellation cancel_;
  const MigrationOptions options_;
};

TEST_F(TransportOrder, connector_takes_the_offers_it_likes_best_and_then_the_next_one_tries) {
  TakingConnector dpdk("dpdk", {"dpdk", "tcp"}, false);
  TakingConnector tcp("tcp", {"dpdk", "tcp"}, true);
  const std::vector<ChannelConnector*> connectors = {&dpdk, &tcp};
  TransportChoice choice(*guest_, control_.source(), connectors, observer_, options_, cancel_);
  choice.SetOffers({{.transport = "tcp", .address = "192.0.2.1"},
                    {.transport = "dpdk", .address = "192.0.2.2"}});
  ASSERT_TRUE(choice.Connect().ok());
  // A connector that has failed has its other offers tried last.
  EXPECT_THAT(dpdk.tried, testing::ElementsAre("dpdk 192.0.2.2"));
  EXPECT_THAT(tcp.tried, testing::ElementsAre("dpdk 192.0.2.2"));
  EXPECT_EQ(choice.connector(), &tcp);
  EXPECT_EQ(choice.chosen().transport, "dpdk");
}

TEST_F(TransportOrder, offer_that_another_connector_can_take_is_asked_for_again) {
  TakingConnector dpdk("dpdk", {"dpdk", "tcp"}, true);
  TakingConnector tcp("tcp", {"dpdk", "tcp"}, true);
  const std::vector<ChannelConnector*> connectors = {&dpdk, &tcp};
  TransportChoice choice(*guest_, control_.source(), connectors, observer_, options_, cancel_);
  choice.SetOffers({{.transport = "tcp", .address = "192.0.2.1"}});
  ASSERT_TRUE(choice.Connect().ok());
  EXPECT_THAT(dpdk.tried, testing::ElementsAre("tcp 192.0.2.1"));
  std::thread destination([this] {
    const auto message = control_.destination().Receive(In(std::chrono::seconds(30)));
    ASSERT_TRUE(message.ok());
    const auto* drop = std::get_if<DropTransport>(&*message);
    ASSERT_NE(drop, nullptr);
    EXPECT_TRUE(drop->offer_again);
    EXPECT_TRUE(
        control_.destination()
            .Send(TransportDropped{.transport = "tcp",
                                   .offers = {{.transport = "tcp", .address = "192.0.2.9"}}})
            .ok());
  });
  EXPECT_TRUE(choice.Replace(absl::UnavailableError("it broke")).ok());
  destination.join();
  EXPECT_THAT(tcp.tried, testing::ElementsAre("tcp 192.0.2.9"));
}

TEST_F(TransportOrder, older_destination_that_offers_nothing_again_ends_it_with_the_first_reason) {
  TakingConnector dpdk("dpdk", {"dpdk", "tcp"}, true);
  TakingConnector tcp("tcp", {"dpdk", "tcp"}, true);
  const std::vector<ChannelConnector*> connectors = {&dpdk, &tcp};
  TransportChoice choice(*guest_, control_.source(), connectors, observer_, options_, cancel_);
  choice.SetOffers({{.transport = "tcp", .address = "192.0.2.1"}});
  ASSERT_TRUE(choice.Connect().ok());
  ASSERT_TRUE(control_.destination().Send(TransportDropped{.transport = "tcp"}).ok());
  EXPECT_EQ(choice.Replace(absl::UnavailableError("it broke")).status(),
            absl::UnavailableError("it broke"));
  EXPECT_TRUE(tcp.tried.empty());
}

}  // namespace
}  // namespace ramferry
