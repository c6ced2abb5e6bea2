#include "transport/control/codec.h"

#include <fmt/format.h>

#include <limits>
#include <utility>
#include <variant>

#include "base/status.h"
#include "transport/control/control.pb.h"
#include "transport/control/message_check.h"

namespace ramferry {
namespace {

// ---- to the wire

void ToWire(const GuestDescription& guest, v1::Guest& wire) {
  wire.set_name(guest.name);
  wire.set_hypervisor(guest.hypervisor);
  wire.set_hypervisor_version(guest.hypervisor_version);
  wire.set_machine(guest.machine);
  wire.set_vcpus(guest.vcpus);
  wire.set_running(guest.running);
  wire.set_blueprint(guest.blueprint);
  for (const RegionDescription& region : guest.regions) {
    v1::Region& out = *wire.add_regions();
    out.set_name(region.name);
    out.set_size(region.size.value());
    out.set_backing_page_size(region.backing_page_size.value());
    out.set_numa_node(region.numa_node);
    out.set_populated(region.populated.value());
  }
  for (const DiskDescription& disk : guest.disks) {
    v1::Disk& out = *wire.add_disks();
    out.set_device(disk.device);
    out.set_file(disk.file);
    out.set_virtual_size(disk.virtual_size.value());
    out.set_read_only(disk.read_only);
    out.set_shareable(disk.shareable);
    out.set_local_identity(disk.local_identity);
  }
}

void ToWire(const ChannelOffer& offer, v1::ChannelOffer& out) {
  out.set_transport(offer.transport);
  out.set_address(offer.address);
  for (const std::string& address : offer.other_addresses) out.add_other_addresses(address);
  out.set_port(offer.port);
  out.set_encrypted(offer.encrypted);
  for (const std::string& token : offer.tokens) out.add_tokens(token);
}

struct Encoder {
  v1::Frame& frame;

  void operator()(const Hello& m) const {
    v1::Hello& out = *frame.mutable_hello();
    out.set_oldest_version(m.oldest_version);
    out.set_newest_version(m.newest_version);
    out.set_software(m.software);
    out.set_host(m.host);
    out.set_boot_id(m.boot_id);
    out.set_migration_id(m.migration_id);
  }
  void operator()(const HelloReply& m) const {
    v1::HelloReply& out = *frame.mutable_hello_reply();
    out.set_version(m.version);
    out.set_software(m.software);
    out.set_host(m.host);
    out.set_boot_id(m.boot_id);
  }
  void operator()(const Reserve& m) const {
    v1::Reserve& out = *frame.mutable_reserve();
    ToWire(m.guest, *out.mutable_guest());
    out.set_channels(m.channels);
    for (const std::string& transport : m.transports) out.add_transports(transport);
    for (const uint32_t region : m.channel_regions) out.add_channel_regions(region);
  }
  void operator()(const Reserved& m) const {
    for (const ChannelOffer& offer : m.offers) {
      ToWire(offer, *frame.mutable_reserved()->add_offers());
    }
  }
  void operator()(const Refused& m) const {
    for (const std::string& reason : m.reasons) frame.mutable_refused()->add_reasons(reason);
  }
  void operator()(const RoundNote& m) const {
    v1::RoundNote& out = *frame.mutable_round_note();
    out.set_round(m.round);
    out.set_pages(m.pages.value());
    out.set_dirty_pages(m.dirty.value());
  }
  void operator()(const DeviceState& m) const {
    frame.mutable_device_state()->set_data(m.bytes.data(), m.bytes.size());
  }
  void operator()(const Paused&) const { frame.mutable_paused(); }
  void operator()(const ImageComplete& m) const {
    v1::ImageComplete& out = *frame.mutable_image_complete();
    out.set_device_state_bytes(m.device_state_bytes);
    for (const SliceDigest& digest : m.digests) {
      v1::SliceDigest& slice = *out.add_digests();
      slice.set_region(digest.slice.region);
      slice.set_first_page(digest.slice.pages.first);
      slice.set_pages(digest.slice.pages.count);
      slice.set_sha256(digest.sha256);
    }
  }
  void operator()(const Holding& m) const {
    v1::Holding& out = *frame.mutable_holding();
    out.set_device_state_ms(m.device_state_ms);
    out.set_verified(m.verified);
  }
  void operator()(const HandOver&) const { frame.mutable_hand_over(); }
  void operator()(const Activated& m) const {
    frame.mutable_activated()->set_resume_ms(m.resume_ms);
  }
  void operator()(const HandedBack& m) const { frame.mutable_handed_back()->set_reason(m.reason); }
  void operator()(const Abort& m) const { frame.mutable_abort()->set_reason(m.reason); }
  void operator()(const DropTransport& m) const {
    frame.mutable_drop_transport()->set_transport(m.transport);
    frame.mutable_drop_transport()->set_offer_again(m.offer_again);
  }
  void operator()(const TransportDropped& m) const {
    frame.mutable_transport_dropped()->set_transport(m.transport);
    for (const ChannelOffer& offer : m.offers) {
      ToWire(offer, *frame.mutable_transport_dropped()->add_offers());
    }
  }
};

Refused Presentable(const Refused& refused) {
  Refused result;
  for (const std::string& reason : refused.reasons) {
    if (result.reasons.size() == kMaxReasons - 1 && refused.reasons.size() > kMaxReasons) {
      result.reasons.push_back(
          fmt::format("and {} more reasons", refused.reasons.size() - result.reasons.size()));
      break;
    }
    result.reasons.push_back(PresentableReason(reason));
  }
  if (result.reasons.empty()) result.reasons.emplace_back("no reason was given");
  return result;
}

// ---- from the wire: only what the plain types cannot hold is checked here, the rest afterwards

GuestDescription FromWire(const v1::Guest& wire) {
  GuestDescription guest{.name = wire.name(),
                         .hypervisor = wire.hypervisor(),
                         .hypervisor_version = wire.hypervisor_version(),
                         .machine = wire.machine(),
                         .vcpus = wire.vcpus(),
                         .running = wire.running()};
  for (const v1::Region& region : wire.regions()) {
    guest.regions.push_back({.name = region.name(),
                             .size = ByteCount(region.size()),
                             .backing_page_size = ByteCount(region.backing_page_size()),
                             .numa_node = region.numa_node(),
                             .populated = ByteCount(region.populated())});
  }
  for (const v1::Disk& disk : wire.disks()) {
    guest.disks.push_back({.device = disk.device(),
                           .file = disk.file(),
                           .virtual_size = ByteCount(disk.virtual_size()),
                           .read_only = disk.read_only(),
                           .shareable = disk.shareable(),
                           .local_identity = disk.local_identity()});
  }
  guest.blueprint = wire.blueprint();
  return guest;
}

template <class Offers>
absl::StatusOr<std::vector<ChannelOffer>> FromWireOffers(const char* message, const Offers& wire) {
  std::vector<ChannelOffer> offers;
  for (const v1::ChannelOffer& offer : wire) {
    if (offer.port() > std::numeric_limits<uint16_t>::max()) {
      return absl::InvalidArgumentError(
          fmt::format("{}: port {} is not in 1..65535", message, offer.port()));
    }
    offers.push_back(
        {.transport = offer.transport(),
         .address = offer.address(),
         .other_addresses = {offer.other_addresses().begin(), offer.other_addresses().end()},
         .port = static_cast<uint16_t>(offer.port()),
         .encrypted = offer.encrypted(),
         .tokens = {offer.tokens().begin(), offer.tokens().end()}});
  }
  return offers;
}

absl::StatusOr<ControlMessage> FromWire(const v1::Reserved& wire) {
  ASSIGN_OR_RETURN(auto offers, FromWireOffers("Reserved", wire.offers()));
  return Reserved{.offers = std::move(offers)};
}

absl::StatusOr<ControlMessage> FromWire(const v1::TransportDropped& wire) {
  ASSIGN_OR_RETURN(auto offers, FromWireOffers("TransportDropped", wire.offers()));
  return TransportDropped{.transport = wire.transport(), .offers = std::move(offers)};
}

absl::StatusOr<ControlMessage> FromWire(const v1::ImageComplete& wire) {
  ImageComplete image{.device_state_bytes = wire.device_state_bytes()};
  image.digests.reserve(static_cast<size_t>(wire.digests_size()));
  for (const v1::SliceDigest& digest : wire.digests()) {
    if (digest.region() >= kMaxRegions) {
      return absl::InvalidArgumentError(fmt::format("ImageComplete: region {} is not in 0..{}",
                                                    digest.region(), kMaxRegions - 1));
    }
    image.digests.push_back({.slice = {.region = static_cast<RegionId>(digest.region()),
                                       .pages = {digest.first_page(), digest.pages()}},
                             .sha256 = digest.sha256()});
  }
  return image;
}

absl::StatusOr<ControlMessage> FromWire(const v1::Frame& frame) {
  switch (frame.kind_case()) {
    case v1::Frame::kHello: {
      const v1::Hello& m = frame.hello();
      return Hello{m.oldest_version(), m.newest_version(), m.software(),
                   m.host(),           m.boot_id(),        m.migration_id()};
    }
    case v1::Frame::kHelloReply: {
      const v1::HelloReply& m = frame.hello_reply();
      return HelloReply{m.version(), m.software(), m.host(), m.boot_id()};
    }
    case v1::Frame::kReserve: {
      const v1::Reserve& m = frame.reserve();
      return Reserve{FromWire(m.guest()),
                     m.channels(),
                     {m.transports().begin(), m.transports().end()},
                     {m.channel_regions().begin(), m.channel_regions().end()}};
    }
    case v1::Frame::kReserved:
      return FromWire(frame.reserved());
    case v1::Frame::kRefused:
      return Refused{{frame.refused().reasons().begin(), frame.refused().reasons().end()}};
    case v1::Frame::kRoundNote: {
      const v1::RoundNote& m = frame.round_note();
      return RoundNote{m.round(), PageCount(m.pages()), PageCount(m.dirty_pages())};
    }
    case v1::Frame::kDeviceState: {
      const std::string& data = frame.device_state().data();
      const auto* bytes = reinterpret_cast<const std::byte*>(data.data());
      return DeviceState{{bytes, bytes + data.size()}};
    }
    case v1::Frame::kPaused:
      return Paused{};
    case v1::Frame::kImageComplete:
      return FromWire(frame.image_complete());
    case v1::Frame::kHolding:
      return Holding{frame.holding().device_state_ms(), frame.holding().verified()};
    case v1::Frame::kHandOver:
      return HandOver{};
    case v1::Frame::kActivated:
      return Activated{frame.activated().resume_ms()};
    case v1::Frame::kHandedBack:
      return HandedBack{frame.handed_back().reason()};
    case v1::Frame::kAbort:
      return Abort{frame.abort().reason()};
    case v1::Frame::kDropTransport:
      return DropTransport{.transport = frame.drop_transport().transport(),
                           .offer_again = frame.drop_transport().offer_again()};
    case v1::Frame::kTransportDropped:
      return FromWire(frame.transport_dropped());
    case v1::Frame::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "a control message of a kind that this version does not know; is the peer's ramferry newer?");
}

}  // namespace

absl::Status EncodeFrame(const ControlMessage& message, v1::Frame& frame) {
  frame.Clear();
  if (const auto* refused = std::get_if<Refused>(&message)) {
    Encoder{frame}(Presentable(*refused));
  } else if (const auto* back = std::get_if<HandedBack>(&message)) {
    Encoder{frame}(HandedBack{PresentableReason(back->reason)});
  } else if (const auto* abort = std::get_if<Abort>(&message)) {
    Encoder{frame}(Abort{PresentableReason(abort->reason)});
  } else {
    RETURN_IF_ERROR(CheckMessage(message));
    std::visit(Encoder{frame}, message);
  }
  if (const size_t size = frame.ByteSizeLong(); size > kMaxFrameBytes) {
    return absl::InvalidArgumentError(fmt::format("{}: {} bytes on the wire, at most {} allowed",
                                                  NameOf(message), size, kMaxFrameBytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<ControlMessage> DecodeFrame(const v1::Frame& frame) {
  if (const size_t size = frame.ByteSizeLong(); size > kMaxFrameBytes) {
    return absl::InvalidArgumentError(
        fmt::format("a control message of {} bytes, at most {} allowed", size, kMaxFrameBytes));
  }
  ASSIGN_OR_RETURN(ControlMessage message, FromWire(frame));
  RETURN_IF_ERROR(CheckMessage(message));
  return message;
}

}  // namespace ramferry
