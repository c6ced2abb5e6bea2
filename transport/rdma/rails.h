// Several RDMA devices between the same two hosts: rails. Which channel takes which.
//
// The destination names an address of each of its devices; the source keeps those that another
// device of its own leads to. Every channel stays on one rail. A worker's channel takes the rail
// nearest to the memory that the worker begins with (the kernel's NUMA distances, which are the
// firmware's); rails that are equally near, or of unknown place, are shared out evenly.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/guest_memory.h"
#include "transport/page_channel.h"
#include "transport/rdma/needs.h"

namespace ramferry::rdma {

using NumaNode = std::optional<int>;  // empty: unknown

// How far memory of one node is from a device at another: 10 for the same one, more for others.
using NodeDistance = std::function<int(int, int)>;

// The kernel's (/sys/devices/system/node/nodeN/distance); 10 for nodes that it does not know.
[[nodiscard]] int KernelNodeDistance(int from, int to);

// For each channel the index of its rail: the nearest, and of those the one with fewest channels.
[[nodiscard]] std::vector<size_t> ChooseRails(std::span<const NumaNode> channels,
                                              std::span<const NumaNode> rails,
                                              const NodeDistance& distance);

// Where the memory is that each of `channels` workers begins with: the engine gives worker i the
// i-th part of all regions in a row. Looks at some pages that exist; populates none.
[[nodiscard]] std::vector<NumaNode> NodesOfShares(std::span<const MappedRegion> memory,
                                                  size_t channels);

// The numeric addresses of this host by which its RDMA devices with an active port are found
// (routable RoCE v2 GIDs; for InfiniBand those of its IPoIB interfaces), in the order of the
// devices: first one for each device, then the others. Not more than kMostOtherAddresses, and none
// of devices that do not allow what is needed.
[[nodiscard]] std::vector<std::string> RailAddresses(const RdmaNeeds& needs);

// The addresses of an offer in the order to try them.
struct Ways {
  std::vector<std::string> addresses;
  // The control channel's, if the destination names others and not this one: on a network without
  // RDMA there. From here it may still seem to lead to a device of ours (a Linux host answers ARP
  // for all its addresses on every network), and a request that goes there is never answered: not
  // tried unless nothing else leads anywhere.
  std::string last_resort;
};
[[nodiscard]] Ways WaysOf(const ChannelOffer& offer);

// The RDMA devices of this host on the interfaces that lead to any of these addresses.
[[nodiscard]] std::vector<std::string> DevicesTowards(std::span<const std::string> addresses);

// The node of a device by its name ("mlx5_0"), or of the network interface under it (soft-RoCE).
[[nodiscard]] NumaNode NodeOfDevice(const char* name);

}  // namespace ramferry::rdma
