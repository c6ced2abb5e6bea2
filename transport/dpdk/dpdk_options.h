// What a host's DPDK port is told. Plain data; the configuration's section [dpdk].
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/cpu_set.h"

namespace ramferry::dpdk {

class Wire;

inline constexpr uint32_t kLeastMtu = 576;
inline constexpr uint32_t kMostMtu = 9000;

struct DpdkOptions {
  // The port: a PCI address ("0000:81:00.0"), a network interface of this host ("eth1", served by
  // net_af_packet beside the kernel), or a virtual device as DPDK's --vdev takes it
  // ("net_memif0,role=client,...").
  std::string device;
  // This port's own IPv4 address with its prefix, "192.0.2.7/24". Not one that the kernel has.
  std::string address;
  std::string gateway;  // IPv4; empty: only this network can be reached
  uint32_t vlan = 0;    // 802.1Q tag, 1 to 4094; 0: untagged
  uint32_t mtu = 1500;  // kLeastMtu to kMostMtu; the network must carry it
  // Where the polling thread may run; empty: near the device, as the kernel says.
  CpuSet cpus;
  // "on", "off", or "auto": on for a PCI device where any are free.
  std::string hugepages = "auto";
  // For DPDK's buffers, in MiB.
  uint32_t memory_mib = 128;
  // For tests: puts something between the TCP and its port. Null: nothing.
  std::function<std::unique_ptr<Wire>(std::unique_ptr<Wire>)> wrap;
};

}  // namespace ramferry::dpdk
