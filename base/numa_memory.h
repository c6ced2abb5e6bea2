// Where memory is, and where it shall be: the kernel's NUMA calls, for shared mappings of files.
//
// A policy that is set on a shared mapping of a tmpfs file belongs to the file (mbind(2), "shared
// policy"): it holds for every process, for pwrite and splice into it, and until it is changed or
// the file goes. On hugetlbfs it holds for first touches through this mapping only.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/status.h"

namespace ramferry {

// Highest node number plus one that is believed; the kernel's own limit is 1024.
inline constexpr int kMaxNodes = 1024;

// For each address in a process (0: this one) the node of the page that is mapped there, -1 where
// none is, or where nobody can tell. Populates nothing (move_pages(2) without a target).
void NodesOfAddresses(pid_t process, std::span<const uint64_t> addresses, std::span<int> nodes);

// New pages of the mapping come from `node` as long as that has free memory, and then from the next
// best: a guest must not be killed for the sake of speed.
[[nodiscard]] absl::Status PreferNode(std::byte* address, uint64_t length, int node);
// New pages come from where they are touched first.
[[nodiscard]] absl::Status PreferNoNode(std::byte* address, uint64_t length);

// New pages come from where they are touched first, and stay there whoever uses them: the kernel's
// automatic balancing (sysctl kernel.numa_balancing) moves only what has no policy. Does nothing on
// a kernel without NUMA.
void KeepWhereTouched(std::byte* address, uint64_t length);

// Whether somebody has set a policy for the memory at `address`, QEMU's host-nodes= for instance.
[[nodiscard]] bool HasPolicy(const std::byte* address);
// The node that such a policy names first; nothing for a policy without nodes.
[[nodiscard]] std::optional<int> PolicyNode(const std::byte* address);

}  // namespace ramferry
