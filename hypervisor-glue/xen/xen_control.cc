#include "hypervisor-glue/xen/xen_control.h"

#include <unistd.h>

#include <cstdlib>
#include <vector>

#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

constexpr const char* kPrivcmd = "/dev/xen/privcmd";
// Asked for at a time.
constexpr uint32_t kDomains = 256;

std::string UuidOf(const xen_domain_handle_t& handle) {
  std::string text;
  for (size_t i = 0; i < sizeof handle; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", handle[i]);
  }
  return text;
}

std::string PathOf(const XenDomain& domain, const std::string& path) {
  return fmt::format("/local/domain/{}/{}", domain.id, path);
}

}  // namespace

absl::StatusOr<std::unique_ptr<XenControl>> XenControl::Open() {
  const auto no_dom0 = [](const char* why) {
    return absl::FailedPreconditionError(
        fmt::format("this is no Xen dom0 ({}): Xen domains are moved from and to a dom0", why));
  };
  if (::access(kPrivcmd, F_OK) != 0) return no_dom0("there is no /dev/xen/privcmd");
  if (::access(kPrivcmd, R_OK | W_OK) != 0) return no_dom0("no right to use /dev/xen/privcmd");
  std::unique_ptr<XenControl> xen(new XenControl);
  // What libxenctrl would print is in the statuses; only what nobody expects goes to stderr.
  xen->log_ =
      reinterpret_cast<xentoollog_logger*>(xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0));
  xen->xc_ = xc_interface_open(xen->log_, xen->log_, 0);
  if (xen->xc_ == nullptr) return no_dom0("Xen does not answer");
  xc_dominfo_t info{};
  if (xc_domain_getinfo(xen->xc_, 0, 1, &info) != 1) return no_dom0("Xen grants no control");
  xen->memory_ = xenforeignmemory_open(xen->log_, 0);
  if (xen->memory_ == nullptr) return ErrnoStatus(errno, "cannot map memory of Xen domains");
  xen->store_ = xs_open(0);
  if (xen->store_ == nullptr) return ErrnoStatus(errno, "xenstore does not answer");
  return xen;
}

XenControl::~XenControl() {
  if (store_ != nullptr) xs_close(store_);
  if (memory_ != nullptr) xenforeignmemory_close(memory_);
  if (xc_ != nullptr) xc_interface_close(xc_);
  if (log_ != nullptr) xtl_logger_destroy(log_);
}

uint32_t XenControl::MajorVersion() const {
  return static_cast<uint32_t>(xc_version(xc_, XENVER_version, nullptr)) >> 16;
}

uint32_t XenControl::MinorVersion() const {
  return static_cast<uint32_t>(xc_version(xc_, XENVER_version, nullptr)) & 0xffff;
}

std::string XenControl::Version() const {
  return fmt::format("{}.{}", MajorVersion(), MinorVersion());
}

absl::Status XenControl::Error(const XenDomain& domain, const std::string& what) {
  return ErrnoStatus(errno, fmt::format("domain {} ({}): {}", domain.name, domain.id, what));
}

absl::StatusOr<XenDomain> XenControl::Find(const std::string& name_or_id) const {
  std::vector<xc_domaininfo_t> infos(kDomains);
  for (uint32_t first = 0;;) {
    const int found = xc_domain_getinfolist(xc_, first, kDomains, infos.data());
    if (found < 0) return ErrnoStatus(errno, "Xen does not list its domains");
    for (int i = 0; i < found; ++i) {
      XenDomain domain{.id = infos[static_cast<size_t>(i)].domain,
                       .uuid = UuidOf(infos[static_cast<size_t>(i)].handle)};
      domain.name = Read(domain, "name").value_or("");
      if (domain.name == name_or_id || domain.uuid == name_or_id ||
          fmt::format("{}", domain.id) == name_or_id) {
        return domain;
      }
    }
    if (found < static_cast<int>(kDomains)) break;
    first = infos.back().domain + 1U;
  }
  return absl::NotFoundError(
      fmt::format("Xen has no domain {}: `xl list` shows what there is", name_or_id));
}

absl::StatusOr<XenDomain> XenControl::FindByUuid(const std::string& uuid) const {
  return Find(uuid);
}

absl::StatusOr<XenDomainState> XenControl::StateOf(const XenDomain& domain) const {
  xc_domaininfo_t info{};
  const int found = xc_domain_getinfolist(xc_, domain.id, 1, &info);
  if (found < 0) return Error(domain, "Xen does not say how it is");
  if (found == 0 || info.domain != domain.id || UuidOf(info.handle) != domain.uuid) {
    return absl::NotFoundError(fmt::format("domain {} ({}) is gone", domain.name, domain.id));
  }
  XenDomainState state{.pvh_or_hvm = (info.flags & XEN_DOMINF_hvm_guest) != 0,
                       .hap = (info.flags & XEN_DOMINF_hap) != 0,
                       .dying = (info.flags & XEN_DOMINF_dying) != 0,
                       .paused = (info.flags & XEN_DOMINF_paused) != 0,
                       .shut_down = (info.flags & XEN_DOMINF_shutdown) != 0,
                       .pages = info.tot_pages,
                       .vcpus = info.max_vcpu_id + 1};
  const uint32_t reason = (info.flags >> XEN_DOMINF_shutdownshift) & XEN_DOMINF_shutdownmask;
  state.suspended = state.shut_down && reason == SHUTDOWN_suspend;
  return state;
}

std::optional<std::string> XenControl::Read(const XenDomain& domain,
                                            const std::string& path) const {
  unsigned int length = 0;
  void* value = xs_read(store_, XBT_NULL, PathOf(domain, path).c_str(), &length);
  if (value == nullptr) return std::nullopt;
  std::string text(static_cast<const char*>(value), length);
  std::free(value);
  return text;
}

absl::Status XenControl::Write(const XenDomain& domain, const std::string& path,
                               const std::string& value) const {
  if (!xs_write(store_, XBT_NULL, PathOf(domain, path).c_str(), value.data(),
                static_cast<unsigned int>(value.size()))) {
    return Error(domain, "cannot write xenstore's " + path);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> XenControl::Exchange(const XenDomain& domain, const std::string& path,
                                          const std::string& expected,
                                          const std::string& value) const {
  const std::string full = PathOf(domain, path);
  for (;;) {
    const xs_transaction_t transaction = xs_transaction_start(store_);
    if (transaction == XBT_NULL) return Error(domain, "xenstore takes no transaction");
    unsigned int length = 0;
    void* now = xs_read(store_, transaction, full.c_str(), &length);
    const bool same =
        now != nullptr && std::string(static_cast<const char*>(now), length) == expected;
    std::free(now);
    const bool written = same && xs_write(store_, transaction, full.c_str(), value.data(),
                                          static_cast<unsigned int>(value.size()));
    if (xs_transaction_end(store_, transaction, /*abort=*/!written)) return written;
    if (errno != EAGAIN) return Error(domain, "cannot write xenstore's " + path);
  }
}

absl::Status XenControl::Resume(const XenDomain& domain) const {
  // "fast": the guest's own suspend call returns "cancelled", so that it keeps its devices.
  if (xc_domain_resume(xc_, domain.id, /*fast=*/1) != 0) {
    return Error(domain, "it is suspended and does not resume");
  }
  if (!xs_resume_domain(store_, domain.id)) return Error(domain, "xenstore does not resume it");
  return absl::OkStatus();
}

absl::Status XenControl::Unpause(const XenDomain& domain) const {
  if (xc_domain_unpause(xc_, domain.id) != 0) return Error(domain, "it cannot be unpaused");
  return absl::OkStatus();
}

}  // namespace ramferry
