// The choice between transports, where a whole migration cannot show it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace ramferry
