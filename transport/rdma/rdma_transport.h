// Page channels over RDMA: InfiniBand, RoCE and soft-RoCE, by librdmacm and libibverbs.
//
//   RdmaListener listener({.address = "192.0.2.7", .pin_budget = GiB(8)});
//   ASSIGN_OR_RETURN(auto receiver, listener.Expect(guest.regions(), 4));
//   ... receiver->offer() travels over the control channel ...
//   RdmaConnector connector({.pin_budget = GiB(8)});
//   ASSIGN_OR_RETURN(auto channels, connector.Connect(offer, guest.regions(), In(5s)));
//
// Device, port and GID follow from the address by the kernel's routing, as for any connection:
// RDMA goes where the address of the offer is reached. An address without an RDMA device behind it
// is an error of Connect that says so. A listener without an address offers those of all its
// devices, and the channels are shared out over them (rails.h). docs/rdma.md has the design.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/units.h"
#include "transport/page_channel.h"

namespace ramferry::rdma {

struct RdmaOptions {
  // Listener: where to listen, and the address of the offer (empty: everywhere, and the control
  // channel's address). Connector: the address to come from (empty: the kernel's choice).
  std::string address;
  // Bytes of guest memory that may be pinned at once on this host; 0: all of it. The smaller of
  // both hosts' budgets holds. At least a few MiB a channel.
  ByteCount pin_budget;
  // What this host's packets carry; empty: the system's default. RoCE: DSCP and ECN.
  std::optional<uint8_t> traffic_class;
  // 0 to 15. InfiniBand: the virtual lane's choice; RoCE: the priority, where there is a VLAN tag.
  std::optional<uint8_t> service_level;
  // On-demand paging instead of pinning, on a device that has it. For measurements: docs/rdma.md
  // says why nothing else asks for it.
  bool on_demand = false;
  // Connector: once this descriptor is readable, connecting ends with Cancelled; -1: none
  // (Cancellation::fd).
  int cancel_fd = -1;
};

// OK when this host has an RDMA device with an active port; else what is missing, and how to mend
// it.
[[nodiscard]] absl::Status RdmaUsable();

class RdmaListener : public ChannelListener {
 public:
  explicit RdmaListener(RdmaOptions options) : options_(std::move(options)) {}

  [[nodiscard]] std::string transport() const override { return "rdma"; }

  // FailedPrecondition without a usable device or with too low a limit of pinned memory.
  using ChannelListener::Expect;
  [[nodiscard]] absl::StatusOr<std::unique_ptr<ChannelReceiver>> Expect(
      std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels) override;

 private:
  RdmaOptions options_;
};

class RdmaConnector : public ChannelConnector {
 public:
  explicit RdmaConnector(RdmaOptions options) : options_(std::move(options)) {}

  [[nodiscard]] std::string transport() const override { return "rdma"; }

  [[nodiscard]] absl::StatusOr<std::vector<std::unique_ptr<PageChannel>>> Connect(
      const ChannelOffer& offer, std::span<const MappedRegion> source, Deadline deadline) override;

  // RDMA devices on the interfaces that lead to the addresses of the offer.
  [[nodiscard]] std::vector<std::string> NicsTo(const ChannelOffer& offer) override;
  void PlaceChannels(std::vector<ChannelPlace> places) override { places_ = std::move(places); }

  // The most bytes that the channels of the last Connect had pinned at once on this host.
  [[nodiscard]] ByteCount most_pinned() const;

 private:
  RdmaOptions options_;
  std::vector<ChannelPlace> places_;
  std::weak_ptr<struct SourceSide> side_;
};

}  // namespace ramferry::rdma
