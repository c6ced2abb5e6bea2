#include "engine/transport_choice.h"

#include <utility>

#include "base/status.h"
#include "engine/cancellable_receive.h"
#include "engine/on_cancel.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace ramferry {

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

absl::StatusOr<PageChannels> TransportChoice::Connect() {
  absl::Status failure = absl::FailedPreconditionError(
      "the destination offers no transport that this host has: see --transport and "
      "--data-encryption on both hosts");
  for (; next_ < connectors_.size(); ++next_) {
    ChannelConnector& connector = *connectors_[next_];
    for (const ChannelOffer& offer : offers_) {
      if (offer.transport != connector.transport()) continue;
      auto channels = Try(connector, offer);
      if (!channels.ok()) {
        RETURN_IF_ERROR(cancel_.status());
        failure = channels.status();
        observer_.OnNote(fmt::format("{} does not work: {}", offer.transport, Message(failure)));
        continue;
      }
      chosen_ = offer;
      ++next_;
      paths_.clear();
      for (const auto& channel : *channels) {
        const std::string& path = channel->capabilities().path;
        if (!path.empty() && std::find(paths_.begin(), paths_.end(), path) == paths_.end()) {
          paths_.push_back(path);
        }
      }
      observer_.OnNote(fmt::format("{} page channel{} over {}{}{}{}", channels->size(),
                                   channels->size() == 1 ? "" : "s", offer.transport,
                                   offer.encrypted ? ", encrypted" : ", not encrypted",
                                   paths_.empty() ? "" : "; ", fmt::join(paths_, "; ")));
      return channels;
    }
  }
  return failure;
}

absl::StatusOr<PageChannels> TransportChoice::Replace(const absl::Status& why) {
  bool another = false;
  for (size_t i = next_; i < connectors_.size(); ++i) {
    for (const ChannelOffer& offer : offers_) {
      another |= offer.transport == connectors_[i]->transport();
    }
  }
  if (!another) return why;
  observer_.OnNote(fmt::format("{} has failed ({}); going on over another transport",
                               chosen_.transport, Message(why)));
  RETURN_IF_ERROR(control_.Send(DropTransport{.transport = chosen_.transport}));
  ASSIGN_OR_RETURN(const ControlMessage answer,
                   ReceiveUnlessCancelled(control_, cancel_, In(options_.answer_time)));
  if (const auto* refused = std::get_if<Refused>(&answer)) {
    return absl::AbortedError(
        fmt::format("the destination gave up: {}", fmt::join(refused->reasons, "; ")));
  }
  const auto* dropped = std::get_if<TransportDropped>(&answer);
  if (dropped == nullptr || dropped->transport != chosen_.transport) {
    return absl::AbortedError(
        fmt::format("{}; and the destination answered with {}", Message(why), NameOf(answer)));
  }
  auto channels = Connect();
  if (!channels.ok()) return why;
  return channels;
}

}  // namespace ramferry
