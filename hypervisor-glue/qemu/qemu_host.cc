// QemuHost: finds or starts the QEMU for a guest that comes.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <set>
#include <utility>

#include "base/private_directory.h"
#include "base/status.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/process_memory.h"
#include "hypervisor-glue/qemu/qemu_again.h"
#include "hypervisor-glue/qemu/qemu_destination.h"
#include "hypervisor-glue/qemu/time_limits.h"

namespace ramferry {
namespace {

using std::chrono::seconds;

// For a QEMU that was just started to open its QMP socket.
constexpr seconds kStartTime{20};

// The files that `argv` names as mem-path=.
std::vector<std::string> MemoryFiles(const std::vector<std::string>& argv) {
  std::vector<std::string> files;
  constexpr std::string_view kKey = "mem-path=";
  for (const std::string& word : argv) {
    const size_t at = word.find(kKey);
    if (at == std::string::npos) continue;
    files.push_back(word.substr(at + kKey.size(), word.find(',', at) - at - kKey.size()));
  }
  return files;
}

// One QEMU at a time is started for a QMP socket: until it listens there, nobody else would know of
// it. Holds for all hosts of this process; ends with the object.
class StartsAlone {
 public:
  // Null: another one is being started.
  static std::unique_ptr<StartsAlone> Begin(const std::string& qmp_path) {
    const std::lock_guard lock(mutex());
    if (!starting().insert(qmp_path).second) return nullptr;
    return std::unique_ptr<StartsAlone>(new StartsAlone(qmp_path));
  }
  ~StartsAlone() {
    const std::lock_guard lock(mutex());
    starting().erase(qmp_path_);
  }

 private:
  explicit StartsAlone(std::string qmp_path) : qmp_path_(std::move(qmp_path)) {}
  static std::mutex& mutex() {
    static std::mutex mutex;
    return mutex;
  }
  static std::set<std::string>& starting() {
    static std::set<std::string> starting;
    return starting;
  }

  const std::string qmp_path_;
};

absl::StatusOr<std::unique_ptr<QmpClient>> ConnectStarted(const QemuProcess& process,
                                                          const std::string& path) {
  for (const Deadline deadline = In(kStartTime); Clock::now() < deadline; ::usleep(2000)) {
    if (process.ended()) {
      return absl::FailedPreconditionError("the destination's QEMU ended at once: " +
                                           process.LogTail());
    }
    if (::access(path.c_str(), F_OK) != 0) continue;
    auto client = QmpClient::Connect(path, deadline);
    if (client.ok() || absl::IsDeadlineExceeded(client.status())) return client;
  }
  return absl::DeadlineExceededError("the destination's QEMU did not open its QMP socket: " +
                                     process.LogTail());
}

}  // namespace

absl::StatusOr<std::unique_ptr<QemuDestination>> QemuHost::Start(
    const GuestDescription& description, const ReservationNote& note) {
  const auto definition = std::find_if(
      options_.guests.begin(), options_.guests.end(),
      [&description](const GuestDefinition& guest) { return guest.name == description.name; });
  if (definition == options_.guests.end()) {
    return absl::NotFoundError(fmt::format(
        "the destination has no guest definition named '{}': write one (docs/operating.md) and "
        "give it to ramferry receive with --guest",
        description.name));
  }
  RETURN_IF_ERROR(EnsurePrivateDirectory(options_.runtime_directory, "runtime directory"));
  const std::string stem = options_.runtime_directory + "/" + definition->name;
  const std::string qmp_path = definition->qmp.empty() ? stem + ".qmp" : definition->qmp;
  const auto exclusive = StartsAlone::Begin(qmp_path);
  // A second QEMU on the same memory files would be the end of the first one's guest: so not even
  // when this one does not answer.
  if (exclusive == nullptr || QmpClient::Listens(qmp_path)) {
    return absl::AlreadyExistsError(
        fmt::format("a QEMU for guest '{}' already runs on the destination (QMP socket {})",
                    description.name, qmp_path));
  }
  ::unlink(qmp_path.c_str());
  std::vector<std::string> argv = definition->argv;
  for (const std::string& word :
       {std::string("-qmp"), "unix:" + qmp_path + ",server=on,wait=off", std::string("-incoming"),
        std::string("defer"), std::string("-S")}) {
    argv.push_back(word);
  }
  std::vector<std::string> own_files;
  for (const std::string& file : MemoryFiles(argv)) {
    // A QEMU writes its firmware into its memory as soon as it starts: over a guest that lives
    // there.
    if (const pid_t other = QemuThatMaps(file); other != 0) return MemoryInUse(file, other);
    if (::access(file.c_str(), F_OK) != 0) own_files.push_back(file);
  }
  ASSIGN_OR_RETURN(
      auto process,
      QemuProcess::Prepare(argv, definition->log.empty() ? stem + ".log" : definition->log));
  // Whatever becomes of us, the process is in the journal before it is a QEMU.
  absl::Status status =
      note("qemu:" + qmp_path,
           nlohmann::json{
               {"started", true}, {"files", own_files}, {"process", ProcessRecord(process->pid())}}
               .dump());
  if (status.ok()) status = process->Go();
  auto client = status.ok() ? ConnectStarted(*process, qmp_path) : status;
  if (!client.ok()) {
    process->Kill();
    ::unlink(qmp_path.c_str());
    for (const std::string& file : own_files) ::unlink(file.c_str());
    return client.status();
  }
  std::unique_ptr<QemuDestination> guest(
      new QemuDestination(*std::move(client), std::move(process)));
  guest->own_files_ = own_files;
  return guest;
}

absl::StatusOr<std::unique_ptr<DestinationGuest>> QemuHost::Reserve(
    const GuestDescription& description, const ReservationNote& note) {
  if (description.hypervisor != "qemu") {
    return absl::FailedPreconditionError(fmt::format(
        "the guest is a {} guest; this destination takes QEMU guests", description.hypervisor));
  }
  std::unique_ptr<QemuDestination> guest;
  if (options_.qmp_path.empty()) {
    ASSIGN_OR_RETURN(guest, Start(description, note));
  } else {
    ASSIGN_OR_RETURN(auto client, QmpClient::Connect(options_.qmp_path, In(kConnectTime)));
    guest.reset(new QemuDestination(std::move(client), nullptr));
  }
  RETURN_IF_ERROR(guest->Prepare(description));
  return std::unique_ptr<DestinationGuest>(std::move(guest));
}

}  // namespace ramferry
