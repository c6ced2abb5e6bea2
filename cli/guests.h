// Guests of every hypervisor, by the name that a person or the journal gives them: qemu:PATH or
// xen:NAME. The one place that knows which glue serves which name.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/settings.h"
#include "engine/journal.h"
#include "hypervisor-glue/guest.h"

namespace ramferry {

// "qemu:PATH" for a path, too; "xen:NAME" for a domain's number and UUID, too. InvalidArgument: the
// name of no guest.
[[nodiscard]] absl::StatusOr<std::string> LocatorOf(const std::string& guest);

struct AttachedGuest {
  std::unique_ptr<SourceGuest> guest;
  std::string summary;  // one line for `ramferry check`
};
[[nodiscard]] absl::StatusOr<AttachedGuest> AttachGuest(const std::string& locator);

// The guest as it would be described to a destination, also where AttachGuest finds reasons against
// moving it. Unimplemented: Xen, where one is what the other finds.
[[nodiscard]] absl::StatusOr<GuestDescription> SurveyGuest(const std::string& locator);

// A guest that a ramferry, now dead, had begun to move away. NotFound: it has ended.
struct LeftGuest {
  std::unique_ptr<SourceGuest> guest;
  bool runs = false;
};
[[nodiscard]] absl::StatusOr<LeftGuest> TakeUpGuest(const JournalEntry& entry);

// As QemuDestination::TakeOver and DiscardLeftover, for a guest that was on its way here.
[[nodiscard]] absl::Status TakeOverGuest(const JournalEntry& entry);
[[nodiscard]] absl::Status DiscardGuest(const JournalEntry& entry);

// What `ramferry receive` was told to take. InvalidArgument: nothing.
[[nodiscard]] absl::StatusOr<std::unique_ptr<DestinationHost>> MakeHost(const Settings& settings);

}  // namespace ramferry
