// Opens the page channels of a migration: over the first transport that works, and over the next
// one when that fails later.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "engine/observer.h"
#include "engine/options.h"
#include "engine/precopy.h"
#include "hypervisor-glue/guest.h"
#include "transport/control_channel.h"
#include "transport/page_channel.h"

namespace ramferry {

class TransportChoice {
 public:
  // `connectors` in order of preference. All must outlive this object.
  TransportChoice(SourceGuest& guest, ControlChannel& control,
                  const std::vector<ChannelConnector*>& connectors, MigrationObserver& observer,
                  const MigrationOptions& options, const Cancellation& cancel)
      : guest_(guest),
        control_(control),
        connectors_(connectors),
        observer_(observer),
        options_(options),
        cancel_(cancel) {}

  // What the destination offered; before Connect.
  void SetOffers(std::vector<ChannelOffer> offers) { offers_ = std::move(offers); }

  // Channels over the best transport not tried yet, each proven by a round trip. The last failure
  // when there is none left.
  [[nodiscard]] absl::StatusOr<PageChannels> Connect();
  // The same after the channels in use have failed with `why`: nothing can land by them any more
  // when this returns OK.
  [[nodiscard]] absl::StatusOr<PageChannels> Replace(const absl::Status& why);

  [[nodiscard]] const ChannelOffer& chosen() const { return chosen_; }
  // What the channels in use are sent over on this side; null: there are none yet.
  [[nodiscard]] const ChannelConnector* connector() const { return connector_; }
  // The ways the channels in use take, each once, where they have something to tell.
  [[nodiscard]] const std::vector<std::string>& paths() const { return paths_; }

 private:
  struct Way {  // a connector, and an offer that it takes
    size_t connector = 0;
    size_t offer = 0;
  };

  [[nodiscard]] absl::StatusOr<PageChannels> Try(ChannelConnector& connector, ChannelOffer offer);
  // The best that was not tried yet: by a connector that has not failed before one that has.
  [[nodiscard]] std::optional<Way> Next() const;
  [[nodiscard]] bool Tried(const ChannelConnector& connector, const ChannelOffer& offer) const;
  void Choose(const Way& way, const PageChannels& channels);

  SourceGuest& guest_;
  ControlChannel& control_;
  const std::vector<ChannelConnector*>& connectors_;
  MigrationObserver& observer_;
  const MigrationOptions& options_;
  const Cancellation& cancel_;
  std::vector<ChannelOffer> offers_;
  // Names of connectors and of offers that were tried together.
  std::set<std::pair<std::string, std::string>> tried_;
  const ChannelConnector* connector_ = nullptr;  // that the channels in use are from
  ChannelOffer chosen_;
  std::vector<std::string> paths_;
};

}  // namespace ramferry
