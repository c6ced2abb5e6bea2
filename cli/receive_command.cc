// `ramferry receive`.
#include <sys/stat.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <mutex>

#include "base/status.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/receiver.h"
#include "cli/say.h"
#include "cli/signals.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

using std::chrono::seconds;

// For a source that has just lost its guest to end its QEMU and to confirm.
constexpr seconds kConfirmTime{15};

// What a signal asks for, or a guest that has come.
enum class Wish { kEnd, kReload };

class LogObserver : public DestinationObserver {
 public:
  void OnReserved(const std::string& migration_id, const GuestDescription& guest,
                  const std::string& peer) override {
    Log(fmt::format("guest {} comes from {} (migration {})", guest.name, peer, migration_id));
  }
  void OnRound(const std::string& guest, const RoundNote& note) override {
    Log(fmt::format("guest {}: round {}, {} pages, {} dirty again", guest, note.round,
                    note.pages.value(), note.dirty.value()));
  }
  void OnEnd(const std::string& guest, const absl::Status& status) override {
    Log(status.ok()
            ? fmt::format("guest {} runs here", guest)
            : fmt::format("{}: {}", guest.empty() ? "refused" : "guest " + guest + " is not taken",
                          Message(status)));
    const std::lock_guard lock(mutex_);
    if (status.ok()) arrived_ = true;
    changed_.notify_all();
  }
  void OnNote(const std::string& note) override { Log(note); }

  void Interrupt() { Set(interrupted_); }
  void Reload() { Set(reload_); }
  Wish Wait(bool once) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return interrupted_ || reload_ || (once && arrived_); });
    if (interrupted_ || (once && arrived_)) return Wish::kEnd;
    reload_ = false;
    return Wish::kReload;
  }

 private:
  void Set(bool& wish) {
    const std::lock_guard lock(mutex_);
    wish = true;
    changed_.notify_all();
  }
  void Log(const std::string& text) {
    const std::lock_guard lock(log_mutex_);
    Tell("{}\n", text);
  }

  std::mutex log_mutex_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool arrived_ = false;
  bool interrupted_ = false;
  bool reload_ = false;
};

}  // namespace

int ReceiveCommand(const ReceiveArguments& arguments, const Settings& settings) {
  // Also what our QEMUs make, first of all the files that hold their guests' memory.
  ::umask(S_IRWXG | S_IRWXO);
  // The QEMUs we start outlive their migration, and nobody here waits for their end.
  std::signal(SIGCHLD, SIG_IGN);
  LogObserver observer;
  const SignalWatch signals([&observer](int signal, int /*count*/) {
    signal == SIGHUP ? observer.Reload() : observer.Interrupt();
  });
  const auto receiver = Receiver::Start(settings, observer);
  if (!receiver.ok()) {
    Tell("ramferry: {}\n", Message(receiver.status()));
    return absl::IsInvalidArgument(receiver.status()) ? kExitUsage : kExitError;
  }
  Tell("listening on {} port {}\n", settings.listen, (*receiver)->port());
  while (observer.Wait(arguments.once) == Wish::kReload) {
    auto wanted = arguments.load();
    const absl::Status taken = wanted.ok() ? (*receiver)->Reload(*wanted) : wanted.status();
    observer.OnNote(taken.ok() ? "read the configuration again: hosts that may send, and guests"
                               : "the configuration is not taken: " + Message(taken));
  }
  if (arguments.once) (*receiver)->AwaitConfirmations(In(kConfirmTime));
  if (const absl::Status status = (*receiver)->Stop(In(seconds(60))); !status.ok()) {
    Tell("ramferry: {}\n", Message(status));
    return kExitError;
  }
  return kExitOk;
}

}  // namespace ramferry
