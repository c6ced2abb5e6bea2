// The choice between transports, where a whole migration cannot show it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "engine/transport_choice.h"
#include "hypervisor-glue/synthetic/synthetic_guest.h"
#include "tests/unit/fake_control_channel.h"

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
