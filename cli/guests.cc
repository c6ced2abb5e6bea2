#include "cli/guests.h"

#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/private_directory.h"
#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/guest_definition.h"
#include "hypervisor-glue/qemu/qemu_destination.h"
#include "hypervisor-glue/qemu/qemu_source.h"
#ifdef RAMFERRY_XEN
#include "hypervisor-glue/xen/xen_control.h"
#include "hypervisor-glue/xen/xen_destination.h"
#include "hypervisor-glue/xen/xen_source.h"
#endif

namespace ramferry {
namespace {

constexpr std::string_view kQemu = "qemu:";
constexpr std::string_view kXen = "xen:";

// "qemu:/run/x.qmp" -> "/run/x.qmp"; "" for another kind of guest.
std::string QmpPathIn(const std::string& locator) {
  return locator.starts_with(kQemu) ? locator.substr(kQemu.size()) : "";
}

bool IsXen(const std::string& locator) {
  return locator.starts_with(kXen);
}

#ifndef RAMFERRY_XEN
absl::Status NoXen() {
  return absl::FailedPreconditionError(
      "this ramferry was built without Xen (libxen-dev was not there): it moves QEMU's guests "
      "only");
}
#endif

// Hands a guest to the glue of its hypervisor.
class AnyHost : public DestinationHost {
 public:
  AnyHost(QemuHostOptions qemu, bool with_qemu, std::unique_ptr<DestinationHost> xen)
      : qemu_(std::move(qemu)), with_qemu_(with_qemu), xen_(std::move(xen)) {}

  absl::StatusOr<std::unique_ptr<DestinationGuest>> Reserve(const GuestDescription& description,
                                                            const ReservationNote& note) override {
    if (description.hypervisor == "xen") {
      if (xen_ != nullptr) return xen_->Reserve(description, note);
      return absl::FailedPreconditionError(
          "this receiver takes no Xen domains: start it in a dom0, with --xen");
    }
    if (with_qemu_ || description.hypervisor != "qemu") return qemu_.Reserve(description, note);
    return absl::FailedPreconditionError(
        "this receiver takes Xen domains only: start it with --guest or --qmp");
  }

 private:
  QemuHost qemu_;
  bool with_qemu_;
  std::unique_ptr<DestinationHost> xen_;  // null: takes no domains
};

}  // namespace

absl::StatusOr<std::string> LocatorOf(const std::string& guest) {
  const bool is_path = guest.starts_with('/') || guest.starts_with('.');
  if (const std::string named = is_path ? guest : QmpPathIn(guest); !named.empty()) {
    // However it was named, and from wherever, the journal must know it again.
    std::error_code error;
    const std::filesystem::path whole = std::filesystem::absolute(named, error);
    const std::filesystem::path path = std::filesystem::weakly_canonical(whole, error);
    return std::string(kQemu) + (error ? named : path.string());
  }
  if (IsXen(guest) && guest.size() > kXen.size()) {
#ifdef RAMFERRY_XEN
    // However it was named, the journal must know it again.
    ASSIGN_OR_RETURN(const auto xen, XenControl::Open());
    ASSIGN_OR_RETURN(const XenDomain domain, xen->Find(guest.substr(kXen.size())));
    return std::string(kXen) + domain.name;
#else
    return NoXen();
#endif
  }
  return absl::InvalidArgumentError(
      fmt::format("'{}' is no guest: give the path of its QMP socket, as in qemu:/run/web1.qmp, or "
                  "the name of a Xen domain, as in xen:web1",
                  guest));
}

absl::StatusOr<AttachedGuest> AttachGuest(const std::string& locator) {
  if (IsXen(locator)) {
#ifdef RAMFERRY_XEN
    ASSIGN_OR_RETURN(auto guest, XenSource::Attach(locator.substr(kXen.size())));
    const GuestDescription& description = guest->description();
    const std::string summary = fmt::format(
        "{}: {}, Xen {}, {} vCPUs, {} piece(s) of memory", description.name, description.machine,
        description.hypervisor_version, description.vcpus, description.regions.size());
    return AttachedGuest{.guest = std::move(guest), .summary = summary};
#else
    return NoXen();
#endif
  }
  ASSIGN_OR_RETURN(auto guest, QemuSource::Attach(QmpPathIn(locator)));
  const GuestDescription& description = guest->description();
  const std::string summary = fmt::format(
      "{}: {}, QEMU {}, {} vCPUs, {} memory backend(s){}", description.name, description.machine,
      description.hypervisor_version, description.vcpus, guest->regions().size(),
      guest->inventory().has_direct_disk() ? ", direct-I/O disk: paused about 1 ms a round" : "");
  return AttachedGuest{.guest = std::move(guest), .summary = summary};
}

absl::StatusOr<GuestDescription> SurveyGuest(const std::string& locator) {
  if (IsXen(locator)) {
    return absl::UnimplementedError("of a Xen domain, what attaching to it finds is all there is");
  }
  return QemuSource::Survey(QmpPathIn(locator));
}

absl::StatusOr<LeftGuest> TakeUpGuest(const JournalEntry& entry) {
  if (IsXen(entry.locator)) {
#ifdef RAMFERRY_XEN
    ASSIGN_OR_RETURN(auto guest, XenSource::TakeUp(entry.undo, entry.running));
    ASSIGN_OR_RETURN(const bool runs, guest->Runs());
    return LeftGuest{.guest = std::move(guest), .runs = runs};
#else
    return NoXen();
#endif
  }
  ASSIGN_OR_RETURN(auto guest,
                   QemuSource::TakeUp(QmpPathIn(entry.locator), entry.undo, entry.running));
  const bool runs = guest->inventory().status == "running";
  return LeftGuest{.guest = std::move(guest), .runs = runs};
}

absl::Status TakeOverGuest(const JournalEntry& entry) {
  if (IsXen(entry.locator)) {
#ifdef RAMFERRY_XEN
    return XenDestination::TakeOver(entry.undo, entry.running);
#else
    return NoXen();
#endif
  }
  return QemuDestination::TakeOver(QmpPathIn(entry.locator), entry.undo, entry.running);
}

absl::Status DiscardGuest(const JournalEntry& entry) {
  if (IsXen(entry.locator)) {
#ifdef RAMFERRY_XEN
    return XenDestination::DiscardLeftover(entry.undo);
#else
    return NoXen();
#endif
  }
  return QemuDestination::DiscardLeftover(QmpPathIn(entry.locator), entry.undo,
                                          /*may_run=*/entry.phase == Phase::kActivating);
}

absl::StatusOr<std::unique_ptr<DestinationHost>> MakeHost(const Settings& settings) {
  QemuHostOptions qemu{.qmp_path = settings.qmp, .runtime_directory = settings.runtime_dir};
  for (const std::string& path : settings.guests) {
    ASSIGN_OR_RETURN(GuestDefinition definition, LoadGuestDefinition(path));
    for (const GuestDefinition& other : qemu.guests) {
      if (other.name != definition.name) continue;
      return absl::InvalidArgumentError(
          fmt::format("two guest definitions are named '{}': {} is the second", other.name, path));
    }
    qemu.guests.push_back(std::move(definition));
  }
  if (!qemu.guests.empty()) {
    RETURN_IF_ERROR(EnsurePrivateDirectory(settings.runtime_dir, "runtime directory"));
  }
  const bool with_qemu = !qemu.qmp_path.empty() || !qemu.guests.empty();
  std::unique_ptr<DestinationHost> xen;
  if (settings.xen) {
#ifdef RAMFERRY_XEN
    RETURN_IF_ERROR(XenControl::Open().status());
    xen = std::make_unique<XenHost>(settings.runtime_dir);
#else
    return NoXen();
#endif
  }
  if (!with_qemu && xen == nullptr) {
    return absl::InvalidArgumentError(
        "there is nothing for a guest to come to: give --guest DEFINITION.toml (a QEMU to start), "
        "--qmp SOCKET of one that was started with -incoming defer, or --xen in a dom0");
  }
  return std::make_unique<AnyHost>(std::move(qemu), with_qemu, std::move(xen));
}

}  // namespace ramferry
