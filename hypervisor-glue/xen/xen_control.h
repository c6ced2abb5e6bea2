// This host's Xen: its handles, and its domains.
//
//   ASSIGN_OR_RETURN(auto xen, XenControl::Open());
//   ASSIGN_OR_RETURN(const XenDomain domain, xen->Find("web1"));
//
// Thread-safe, as libxenctrl, libxenforeignmemory and libxenstore are.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hypervisor-glue/xen/libxen.h"

namespace ramferry {

// A domain keeps its UUID when it moves; its number is this host's, and is not used twice in a boot
// until 32 thousand domains have come and gone.
struct XenDomain {
  uint32_t id = 0;
  std::string uuid;
  std::string name;
};

// What Xen says about a domain now.
struct XenDomainState {
  bool pvh_or_hvm = false;
  bool hap = false;  // hardware-assisted paging, which log-dirty needs on a stock hypervisor
  bool dying = false;
  bool paused = false;     // by the toolstack
  bool shut_down = false;  // stands still for good, or until it is resumed
  bool suspended = false;  // shut down in order to be saved
  uint64_t pages = 0;      // that it owns now
  uint32_t vcpus = 0;
};

class XenControl {
 public:
  // FailedPrecondition, in one line: this is no dom0.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<XenControl>> Open();
  ~XenControl();
  XenControl(const XenControl&) = delete;
  XenControl& operator=(const XenControl&) = delete;

  [[nodiscard]] xc_interface* xc() const { return xc_; }
  [[nodiscard]] xenforeignmemory_handle* memory() const { return memory_; }
  // As "4.17".
  [[nodiscard]] std::string Version() const;
  [[nodiscard]] uint32_t MajorVersion() const;
  [[nodiscard]] uint32_t MinorVersion() const;

  // By name or number. NotFound: there is none.
  [[nodiscard]] absl::StatusOr<XenDomain> Find(const std::string& name_or_id) const;
  [[nodiscard]] absl::StatusOr<XenDomain> FindByUuid(const std::string& uuid) const;
  // NotFound: it is gone.
  [[nodiscard]] absl::StatusOr<XenDomainState> StateOf(const XenDomain& domain) const;

  // Xenstore, below the domain's own directory; nothing where there is no such entry.
  [[nodiscard]] std::optional<std::string> Read(const XenDomain& domain,
                                                const std::string& path) const;
  [[nodiscard]] absl::Status Write(const XenDomain& domain, const std::string& path,
                                   const std::string& value) const;
  // Writes `value` if the entry still is `expected`; says whether it was.
  [[nodiscard]] absl::StatusOr<bool> Exchange(const XenDomain& domain, const std::string& path,
                                              const std::string& expected,
                                              const std::string& value) const;

  // Lets a suspended domain go on as if it had never been suspended.
  [[nodiscard]] absl::Status Resume(const XenDomain& domain) const;
  [[nodiscard]] absl::Status Unpause(const XenDomain& domain) const;

  // An error of libxenctrl about a domain.
  [[nodiscard]] static absl::Status Error(const XenDomain& domain, const std::string& what);

 private:
  XenControl() = default;

  xentoollog_logger* log_ = nullptr;
  xc_interface* xc_ = nullptr;
  xenforeignmemory_handle* memory_ = nullptr;
  xs_handle* store_ = nullptr;
};

}  // namespace ramferry
