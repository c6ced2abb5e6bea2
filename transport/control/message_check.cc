#include "transport/control/message_check.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <set>
#include <variant>

#include "base/status.h"
#include "transport/control/text_check.h"

namespace ramferry {
namespace {

constexpr double kMaxMilliseconds = 1e9;  // eleven days

template <class... Args>
absl::Status Bad(fmt::format_string<Args...> format, Args&&... args) {
  return absl::InvalidArgumentError(fmt::format(format, std::forward<Args>(args)...));
}

absl::Status CheckText(std::string_view what, std::string_view text, size_t limit,
                       TextKind kind = TextKind::kLine) {
  if (text.size() > limit)
    return Bad("{} has {} bytes, at most {} allowed", what, text.size(), limit);
  if (!IsPrintableText(text, kind)) return Bad("{} is not printable UTF-8 text", what);
  return absl::OkStatus();
}

absl::Status CheckName(std::string_view what, std::string_view text) {
  return CheckText(what, text, kMaxNameBytes);
}

absl::Status CheckNeededName(std::string_view what, std::string_view text) {
  if (text.empty()) return Bad("{} is empty", what);
  return CheckName(what, text);
}

absl::Status CheckReason(std::string_view what, std::string_view text) {
  return CheckText(what, text, kMaxReasonBytes, TextKind::kParagraph);
}

absl::Status CheckMilliseconds(std::string_view what, double value) {
  if (std::isfinite(value) && value >= 0 && value <= kMaxMilliseconds) return absl::OkStatus();
  return Bad("{} is {}, which is no length of time", what, value);
}

absl::Status CheckRegion(const RegionDescription& region) {
  RETURN_IF_ERROR(CheckNeededName("name", region.name));
  const uint64_t page = region.backing_page_size.value();
  if (!std::has_single_bit(page) || page < KiB(4).value() || page > GiB(1).value()) {
    return Bad("backing page size {} is not a power of two from 4 KiB to 1 GiB", page);
  }
  const uint64_t size = region.size.value();
  if (size == 0) return Bad("size is 0");
  if (size % page != 0)
    return Bad("size {} is not a multiple of its backing page size {}", size, page);
  if (size > kMaxGuestBytes) return Bad("size {} is more than a guest can have", size);
  if (region.populated > region.size) {
    return Bad("{} bytes of {} hold data", region.populated.value(), size);
  }
  if (region.numa_node < -1 || region.numa_node >= kMaxNumaNodes) {
    return Bad("NUMA node {} is not in -1..{}", region.numa_node, kMaxNumaNodes - 1);
  }
  return absl::OkStatus();
}

absl::Status CheckDisk(const DiskDescription& disk) {
  RETURN_IF_ERROR(CheckNeededName("device", disk.device));
  RETURN_IF_ERROR(CheckText("file", disk.file, kMaxPathBytes));
  return CheckName("local identity", disk.local_identity);
}

absl::Status CheckGuest(const GuestDescription& guest) {
  RETURN_IF_ERROR(CheckNeededName("guest name", guest.name));
  RETURN_IF_ERROR(CheckNeededName("hypervisor", guest.hypervisor));
  RETURN_IF_ERROR(CheckName("hypervisor version", guest.hypervisor_version));
  RETURN_IF_ERROR(CheckName("machine", guest.machine));
  RETURN_IF_ERROR(CheckText("blueprint", guest.blueprint, kMaxBlueprintBytes));
  if (guest.vcpus > kMaxVcpus) return Bad("{} vcpus, at most {} allowed", guest.vcpus, kMaxVcpus);
  if (guest.regions.empty()) return Bad("the guest has no memory region");
  if (guest.regions.size() > kMaxRegions) {
    return Bad("{} memory regions, at most {} allowed", guest.regions.size(), kMaxRegions);
  }
  std::set<std::string_view> names;
  uint64_t total = 0;
  for (size_t i = 0; i < guest.regions.size(); ++i) {
    const RegionDescription& region = guest.regions[i];
    RETURN_IF_ERROR(Annotate(CheckRegion(region), fmt::format("region {}", i)));
    if (!names.insert(region.name).second) return Bad("two regions are called {}", region.name);
    total += region.size.value();  // cannot overflow: at most 256 regions of at most 2^52 bytes
  }
  if (total > kMaxGuestBytes) {
    return Bad("the regions have {} bytes together, at most {} allowed", total, kMaxGuestBytes);
  }
  if (guest.disks.size() > kMaxDisks) {
    return Bad("{} disks, at most {} allowed", guest.disks.size(), kMaxDisks);
  }
  for (size_t i = 0; i < guest.disks.size(); ++i) {
    RETURN_IF_ERROR(Annotate(CheckDisk(guest.disks[i]), fmt::format("disk {}", i)));
  }
  return absl::OkStatus();
}

bool IsNumericAddress(const std::string& text) {
  in6_addr ignored;
  return inet_pton(AF_INET, text.c_str(), &ignored) == 1 ||
         inet_pton(AF_INET6, text.c_str(), &ignored) == 1;
}

absl::Status CheckOffer(const ChannelOffer& offer) {
  RETURN_IF_ERROR(CheckNeededName("transport", offer.transport));
  if (!offer.address.empty() && !IsNumericAddress(offer.address)) {
    return Bad("address is not a numeric IPv4 or IPv6 address");
  }
  if (offer.other_addresses.size() > kMostOtherAddresses) {
    return Bad("{} other addresses, at most {} allowed", offer.other_addresses.size(),
               kMostOtherAddresses);
  }
  for (const std::string& address : offer.other_addresses) {
    if (!IsNumericAddress(address)) return Bad("another address is not a numeric one");
  }
  if (offer.port == 0) return Bad("port is 0");
  if (offer.tokens.empty() || offer.tokens.size() > kMaxChannels) {
    return Bad("{} tokens, 1 to {} allowed", offer.tokens.size(), kMaxChannels);
  }
  for (const std::string& token : offer.tokens) {
    if (token.size() != kTokenBytes) {
      return Bad("a token has {} bytes instead of {}", token.size(), kTokenBytes);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOffers(const std::vector<ChannelOffer>& offers) {
  if (offers.size() > kMaxTransports) {
    return Bad("{} channel offers, 1 to {} allowed", offers.size(), kMaxTransports);
  }
  for (size_t i = 0; i < offers.size(); ++i) {
    RETURN_IF_ERROR(Annotate(CheckOffer(offers[i]), fmt::format("channel offer {}", i)));
  }
  return absl::OkStatus();
}

struct Checker {
  absl::Status operator()(const Hello& m) const {
    if (m.oldest_version == 0 || m.oldest_version > m.newest_version) {
      return Bad("protocol versions {} to {} make no sense", m.oldest_version, m.newest_version);
    }
    RETURN_IF_ERROR(CheckName("software", m.software));
    RETURN_IF_ERROR(CheckName("host", m.host));
    RETURN_IF_ERROR(CheckName("boot id", m.boot_id));
    return CheckMigrationId(m.migration_id);
  }
  absl::Status operator()(const HelloReply& m) const {
    if (m.version == 0) return Bad("protocol version is 0");
    RETURN_IF_ERROR(CheckName("software", m.software));
    RETURN_IF_ERROR(CheckName("host", m.host));
    return CheckName("boot id", m.boot_id);
  }
  absl::Status operator()(const Reserve& m) const {
    if (m.channels == 0 || m.channels > kMaxChannels) {
      return Bad("{} page channels, 1 to {} allowed", m.channels, kMaxChannels);
    }
    if (m.transports.empty() || m.transports.size() > kMaxTransports) {
      return Bad("{} transports, 1 to {} allowed", m.transports.size(), kMaxTransports);
    }
    for (const std::string& name : m.transports)
      RETURN_IF_ERROR(CheckNeededName("transport", name));
    RETURN_IF_ERROR(CheckGuest(m.guest));
    if (!m.channel_regions.empty() && m.channel_regions.size() != m.channels) {
      return Bad("regions of {} channels, where there are {}", m.channel_regions.size(),
                 m.channels);
    }
    for (const uint32_t region : m.channel_regions) {
      if (region >= m.guest.regions.size()) return Bad("a channel brings region {}", region);
    }
    return absl::OkStatus();
  }
  absl::Status operator()(const Reserved& m) const {
    if (m.offers.empty()) return Bad("0 channel offers, 1 to {} allowed", kMaxTransports);
    return CheckOffers(m.offers);
  }
  absl::Status operator()(const Refused& m) const {
    if (m.reasons.empty() || m.reasons.size() > kMaxReasons) {
      return Bad("{} reasons, 1 to {} allowed", m.reasons.size(), kMaxReasons);
    }
    for (const std::string& reason : m.reasons) RETURN_IF_ERROR(CheckReason("reason", reason));
    return absl::OkStatus();
  }
  absl::Status operator()(const RoundNote& m) const {
    if (m.round == 0) return Bad("round is 0, the first one is 1");
    if (m.pages > PagesCovering(ByteCount(kMaxGuestBytes)) ||
        m.dirty > PagesCovering(ByteCount(kMaxGuestBytes))) {
      return Bad("{} pages sent and {} dirty are more than a guest can have", m.pages.value(),
                 m.dirty.value());
    }
    return absl::OkStatus();
  }
  absl::Status operator()(const DeviceState& m) const {
    if (m.bytes.size() <= kMaxDeviceStateChunk) return absl::OkStatus();
    return Bad("{} bytes, at most {} allowed", m.bytes.size(), kMaxDeviceStateChunk);
  }
  absl::Status operator()(const ImageComplete& m) const {
    if (m.device_state_bytes > kMaxDeviceStateBytes) {
      return Bad("{} bytes of device state are not plausible", m.device_state_bytes);
    }
    constexpr uint64_t kMaxPages = kMaxGuestBytes / kPageBytes;
    for (const SliceDigest& digest : m.digests) {
      const PageRun& pages = digest.slice.pages;
      if (digest.slice.region >= kMaxRegions || pages.count == 0 || pages.count > kMaxPages ||
          pages.first > kMaxPages - pages.count) {
        return Bad("digest of {} pages from page {} of region {} is outside any guest", pages.count,
                   pages.first, digest.slice.region);
      }
      if (digest.sha256.size() != kDigestBytes) {
        return Bad("a digest has {} bytes instead of {}", digest.sha256.size(), kDigestBytes);
      }
    }
    return absl::OkStatus();
  }
  absl::Status operator()(const Holding& m) const {
    return CheckMilliseconds("time to load the device state", m.device_state_ms);
  }
  absl::Status operator()(const Activated& m) const {
    return CheckMilliseconds("time to resume", m.resume_ms);
  }
  absl::Status operator()(const HandedBack& m) const { return CheckReason("reason", m.reason); }
  absl::Status operator()(const Abort& m) const { return CheckReason("reason", m.reason); }
  absl::Status operator()(const DropTransport& m) const {
    return CheckNeededName("transport", m.transport);
  }
  absl::Status operator()(const TransportDropped& m) const {
    RETURN_IF_ERROR(CheckNeededName("transport", m.transport));
    return CheckOffers(m.offers);
  }
  absl::Status operator()(const Paused&) const { return absl::OkStatus(); }
  absl::Status operator()(const HandOver&) const { return absl::OkStatus(); }
};

}  // namespace

absl::Status CheckMessage(const ControlMessage& message) {
  absl::Status status = std::visit(Checker(), message);
  return status.ok() ? status : Annotate(status, NameOf(message));
}

absl::Status CheckMigrationId(std::string_view id) {
  static constexpr std::string_view kForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  bool good = id.size() == kForm.size();
  for (size_t i = 0; good && i < id.size(); ++i) {
    const bool digit = (id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'f');
    good = kForm[i] == '-' ? id[i] == '-' : digit;
  }
  if (good) return absl::OkStatus();
  return Bad("migration id is not a UUID in lower case ({})", kForm);
}

std::string PresentableReason(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t length = PrintableCharacterBytes(text, TextKind::kParagraph);
    const std::string_view next = length == 0 ? "?" : text.substr(0, length);
    if (result.size() + next.size() > kMaxReasonBytes) break;
    result += next;
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return result;
}

}  // namespace ramferry
