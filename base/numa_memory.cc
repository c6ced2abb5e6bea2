#include "base/numa_memory.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

constexpr size_t kMaskWordBits = 8 * sizeof(unsigned long);
using NodeMask = std::array<unsigned long, kMaxNodes / kMaskWordBits>;
// The kernel takes one bit less than it is told of.
constexpr unsigned long kMaskBits = kMaxNodes + 1;

struct Policy {
  int mode = MPOL_DEFAULT;
  NodeMask nodes{};
};

std::optional<Policy> PolicyAt(const std::byte* address) {
  Policy policy;
  if (::syscall(SYS_get_mempolicy, &policy.mode, policy.nodes.data(), kMaskBits - 1, address,
                MPOL_F_ADDR) != 0) {
    return std::nullopt;
  }
  return policy;
}

absl::Status SetPolicy(std::byte* address, uint64_t length, int mode, int node) {
  NodeMask mask{};
  if (node >= 0) {
    const auto bit = static_cast<size_t>(node);
    mask[bit / kMaskWordBits] |= 1UL << (bit % kMaskWordBits);
  }
  if (::syscall(SYS_mbind, address, length, mode, node < 0 ? nullptr : mask.data(),
                node < 0 ? 0 : kMaskBits, 0) != 0) {
    return ErrnoStatus(errno, fmt::format("cannot bind guest memory to NUMA node {}", node));
  }
  return absl::OkStatus();
}

}  // namespace

void NodesOfAddresses(pid_t process, std::span<const uint64_t> addresses, std::span<int> nodes) {
  static_assert(sizeof(uint64_t) == sizeof(void*), "the kernel takes an array of pointers");
  constexpr size_t kAtOnce = 4096;
  for (size_t first = 0; first < addresses.size(); first += kAtOnce) {
    const size_t count = std::min(kAtOnce, addresses.size() - first);
    const std::span<int> part = nodes.subspan(first, count);
    std::fill(part.begin(), part.end(), -1);
    if (::syscall(SYS_move_pages, process, count, addresses.data() + first, nullptr, part.data(),
                  0) < 0) {
      std::fill(part.begin(), part.end(), -1);
    }
    for (int& node : part) node = std::max(node, -1);  // -ENOENT and the like
  }
}

absl::Status PreferNode(std::byte* address, uint64_t length, int node) {
  return SetPolicy(address, length, MPOL_PREFERRED, node);
}

absl::Status PreferNoNode(std::byte* address, uint64_t length) {
  return SetPolicy(address, length, MPOL_DEFAULT, -1);
}

void KeepWhereTouched(std::byte* address, uint64_t length) {
  SetPolicy(address, length, MPOL_LOCAL, -1).IgnoreError();
}

bool HasPolicy(const std::byte* address) {
  const auto policy = PolicyAt(address);
  return policy && policy->mode != MPOL_DEFAULT;
}

std::optional<int> PolicyNode(const std::byte* address) {
  const auto policy = PolicyAt(address);
  if (!policy || policy->mode == MPOL_DEFAULT) return std::nullopt;
  for (int node = 0; node < kMaxNodes; ++node) {
    const auto bit = static_cast<size_t>(node);
    if ((policy->nodes[bit / kMaskWordBits] >> (bit % kMaskWordBits) & 1) != 0) return node;
  }
  return std::nullopt;
}

}  // namespace ramferry
