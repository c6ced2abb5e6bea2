#include "engine/transport_choice.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "engine/cancellable_receive.h"
#include "engine/on_cancel.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace ramferry {
namespace {

// "dpdk", or "dpdk to tcp" where the two ends differ.
std::string WayName(const ChannelConnector& connector, const ChannelOffer& offer) {
  if (connector.transport() == offer.transport) return offer.transport;
  return fmt::format("{} to {}", connector.transport(), offer.transport);
}

}  // namespace

absl::StatusOr<PageChannels> TransportChoice::Try(ChannelConnector& connector, ChannelOffer offer) {
  if (offer.address.empty()) offer.address = control_.peer_address();
  ASSIGN_OR_RETURN(PageChannels channels,
                   connector.Connect(offer, guest_.regions(), In(options_.answer_time)));
  if (channels.empty()) return absl::InternalError("no channel was made");
  // Connected is not proven: every channel must bring an answer back from the other side.
  const OnCancel watch(cancel_, [&channels] {
    for (const auto& channel : channels) channel->Abort();
  });
  for (const auto& channel : channels) {
    RETURN_IF_ERROR(channel->Flush(In(options_.answer_time)));
  }
  return channels;
}

bool TransportChoice::Tried(const ChannelConnector& connector, const ChannelOffer& offer) const {
  return tried_.contains({connector.transport(), offer.transport});
}

std::optional<TransportChoice::Way> TransportChoice::Next() const {
  std::optional<Way> second_best;
  for (size_t i = 0; i < connectors_.size(); ++i) {
    const ChannelConnector& connector = *connectors_[i];
    const bool failed = std::any_of(tried_.begin(), tried_.end(), [&](const auto& pair) {
      return pair.first == connector.transport();
    });
    for (const std::string& name : connector.takes()) {
      for (size_t j = 0; j < offers_.size(); ++j) {
        if (offers_[j].transport != name || Tried(connector, offers_[j])) continue;
        if (!failed) return Way{i, j};
        if (!second_best) second_best = Way{i, j};
      }
    }
  }
  return second_best;
}

absl::StatusOr<PageChannels> TransportChoice::Connect() {
  absl::Status failure = absl::FailedPreconditionError(
      "the destination offers no transport that this host has: see --transport and "
      "--data-encryption on both hosts");
  while (const std::optional<Way> way = Next()) {
    ChannelConnector& connector = *connectors_[way->connector];
    const ChannelOffer& offer = offers_[way->offer];
    tried_.emplace(connector.transport(), offer.transport);
    auto channels = Try(connector, offer);
    if (channels.ok()) {
      Choose(*way, *channels);
      return channels;
    }
    RETURN_IF_ERROR(cancel_.status());
    failure = channels.status();
    observer_.OnNote(
        fmt::format("{} does not work: {}", WayName(connector, offer), Message(failure)));
  }
  return failure;
}

void TransportChoice::Choose(const Way& way, const PageChannels& channels) {
  connector_ = connectors_[way.connector];
  chosen_ = offers_[way.offer];
  paths_.clear();
  for (const auto& channel : channels) {
    const std::string& path = channel->capabilities().path;
    if (!path.empty() && std::find(paths_.begin(), paths_.end(), path) == paths_.end()) {
      paths_.push_back(path);
    }
  }
  observer_.OnNote(fmt::format("{} page channel{} over {}{}{}{}", channels.size(),
                               channels.size() == 1 ? "" : "s", WayName(*connector_, chosen_),
                               chosen_.encrypted ? ", encrypted" : ", not encrypted",
                               paths_.empty() ? "" : "; ", fmt::join(paths_, "; ")));
}

absl::StatusOr<PageChannels> TransportChoice::Replace(const absl::Status& why) {
  const std::string dropped_name = chosen_.transport;
  std::erase_if(offers_, [&](const auto& offer) { return offer.transport == dropped_name; });
  // The same offer by another connector comes last: what has failed may be the destination's end.
  // Its tokens are used up, so that the destination is asked to make it anew.
  const bool again =
      !Next() &&
      std::any_of(connectors_.begin(), connectors_.end(), [&](const ChannelConnector* connector) {
        const std::vector<std::string> takes = connector->takes();
        return std::find(takes.begin(), takes.end(), dropped_name) != takes.end() &&
               !Tried(*connector, chosen_);
      });
  if (!again && !Next()) return why;
  observer_.OnNote(fmt::format("{} has failed ({}); going on over another transport",
                               connector_ != nullptr ? WayName(*connector_, chosen_) : dropped_name,
                               Message(why)));
  RETURN_IF_ERROR(control_.Send(DropTransport{.transport = dropped_name, .offer_again = again}));
  ASSIGN_OR_RETURN(const ControlMessage answer,
                   ReceiveUnlessCancelled(control_, cancel_, In(options_.answer_time)));
  if (const auto* refused = std::get_if<Refused>(&answer)) {
    return absl::AbortedError(
        fmt::format("the destination gave up: {}", fmt::join(refused->reasons, "; ")));
  }
  const auto* dropped = std::get_if<TransportDropped>(&answer);
  if (dropped == nullptr || dropped->transport != dropped_name) {
    return absl::AbortedError(
        fmt::format("{}; and the destination answered with {}", Message(why), NameOf(answer)));
  }
  offers_.insert(offers_.end(), dropped->offers.begin(), dropped->offers.end());
  auto channels = Connect();
  if (!channels.ok()) return why;
  return channels;
}

}  // namespace ramferry
