// How `ramferry receive` starts a QEMU for a guest that comes: a TOML file on the destination,
// written by its operator. Nothing of a command line ever comes from the peer.
//
//   name = "web1"
//   argv = ["qemu-system-x86_64", "-machine", "q35,memory-backend=ram", "-m", "2G",
//           "-object", "memory-backend-file,id=ram,size=2G,share=on,mem-path=/dev/shm/web1", ...]
//
// Ramferry adds -incoming defer and -S (a definition that holds one of these, or -daemonize, is
// refused), and a -qmp of its own: others that the operator wants stay.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace ramferry {

struct GuestDefinition {
  std::string name;               // must equal the guest's -name
  std::vector<std::string> argv;  // argv[0] is looked up in PATH
  std::string log;                // QEMU's output goes here; default: RUNTIME_DIR/NAME.log
  std::string qmp;                // QMP socket to create; default: RUNTIME_DIR/NAME.qmp
};

// Parses the text of a definition; `origin` is for error messages.
[[nodiscard]] absl::StatusOr<GuestDefinition> ParseGuestDefinition(std::string_view text,
                                                                   const std::string& origin);
[[nodiscard]] absl::StatusOr<GuestDefinition> LoadGuestDefinition(const std::string& path);

}  // namespace ramferry
