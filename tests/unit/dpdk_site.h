// A DPDK port and a kernel on one wire: a veth pair in a network namespace of this process's own.
// DPDK has the one end (dpdk0, 10.99.0.2), the kernel the other (kern0, 10.99.0.1).
#pragma once

#include <sched.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "transport/dpdk/poller.h"

namespace ramferry {

class DpdkSite {
 public:
  static constexpr const char* kKernelAddress = "10.99.0.1";
  static constexpr const char* kPortAddress = "10.99.0.2";

  // Must come before any other thread of the process. DPDK can be set up once in a process, so all
  // tests of one run share the site of the first.
  explicit DpdkSite(uint32_t mtu, const dpdk::DpdkOptions& more = {}) : mtu_(mtu) {
    if (::unshare(CLONE_NEWNET) != 0) {
      why_not_ = std::string("no network namespace: ") + std::strerror(errno);
      return;
    }
    const std::string size = std::to_string(mtu);
    if (!Run("ip link set lo up") ||
        !Run("ip link add dpdk0 mtu " + size + " type veth peer name kern0 mtu " + size) ||
        !Run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1") ||
        !Run("ip address add 10.99.0.1/24 dev kern0") || !Run("ip link set dpdk0 up") ||
        !Run("ip link set kern0 up") ||
        // What leaves the kernel must be packets as on a wire, with their checksums.
        !Run("ethtool -K kern0 tx off rx off tso off gso off gro off >/dev/null")) {
      why_not_ = "no veth pair, or no ethtool";
      return;
    }
    dpdk::DpdkOptions options = more;
    options.device = "dpdk0";
    options.address = "10.99.0.2/24";
    options.mtu = mtu;
    auto poller = dpdk::Poller::Get(options);
    if (poller.ok()) {
      poller_ = *std::move(poller);
    } else {
      why_not_ = std::string(poller.status().message());
      failed_ = true;
    }
  }

  [[nodiscard]] const std::shared_ptr<dpdk::Poller>& poller() const { return poller_; }
  [[nodiscard]] uint32_t mtu() const { return mtu_; }
  // Why there is none: a machine that cannot, unless `failed`.
  [[nodiscard]] const std::string& why_not() const { return why_not_; }
  [[nodiscard]] bool failed() const { return failed_; }

  static bool Run(const std::string& command) { return std::system(command.c_str()) == 0; }

 private:
  uint32_t mtu_;
  std::shared_ptr<dpdk::Poller> poller_;
  std::string why_not_;
  bool failed_ = false;
};

}  // namespace ramferry
