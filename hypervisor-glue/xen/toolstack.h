// Xen's toolstack, as far as Ramferry leaves domains to it: `xl` as child processes.
//
// libxl wants to own SIGCHLD, forks, and after it has built a domain somebody must stay to see it
// end and start it again when it reboots. All that is xl's trade already; what it is told (its
// commands, its save file) has been stable since Xen 4.6.
#pragma once

#include <sys/types.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/unique_fd.h"
#include "hypervisor-glue/xen/migration_stream.h"
#include "hypervisor-glue/xen/xen_control.h"

namespace ramferry {

// libxl's configuration of a domain, as JSON.
[[nodiscard]] absl::StatusOr<std::string> ConfigurationOf(const XenDomain& domain);
// Ends a domain with its devices. Idempotent.
[[nodiscard]] absl::Status DestroyDomain(const XenControl& xen, const XenDomain& domain);

// An `xl restore` at work: it has read what it was fed so far and waits for more. If this process
// dies, xl finds the stream's end and removes what it has built.
class DomainBuilder {
 public:
  // Its output goes to the file `log`.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<DomainBuilder>> Start(const std::string& log);
  ~DomainBuilder();
  DomainBuilder(const DomainBuilder&) = delete;
  DomainBuilder& operator=(const DomainBuilder&) = delete;

  // Returns when xl has read all of it.
  [[nodiscard]] absl::Status Feed(std::span<const std::byte> bytes, Deadline deadline);
  // After the stream's end: returns when the domain is whole, and paused. A process of xl stays and
  // looks after it.
  [[nodiscard]] absl::Status Finish(Deadline deadline);
  // Ends the stream before its end: xl removes the domain.
  void Abandon(Deadline deadline);

 private:
  DomainBuilder() = default;
  [[nodiscard]] bool Ended() const;
  [[nodiscard]] absl::Status Failure() const;

  pid_t pid_ = 0;
  UniqueFd process_;  // pidfd
  UniqueFd stream_;
  std::string log_;
};

}  // namespace ramferry
