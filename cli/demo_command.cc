// `ramferry demo`: the whole product on one machine, with a guest that checks its own memory.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "base/status.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/receiver.h"
#include "cli/say.h"
#include "fmt/format.h"
#include "hypervisor-glue/qemu/qemu_process.h"
#include "hypervisor-glue/qemu/qmp_client.h"
#include "hypervisor-glue/tracking/memory_file.h"
#include "tests/guests/testguest/mailbox_reader.h"
#include "transport/control/certificates.h"

namespace ramferry {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// The guest's own counters, read from its memory file.
std::optional<TestGuestCounters> CountersIn(const std::string& memory_file) {
  const UniqueFd fd(::open(memory_file.c_str(), O_RDONLY | O_CLOEXEC));
  return ReadCounters([&fd](void* to, size_t length, uint64_t address) {
    return fd.valid() && ::pread(fd.get(), to, length, static_cast<off_t>(address)) ==
                             static_cast<ssize_t>(length);
  });
}

template <class Condition>
bool WaitFor(Condition condition, seconds time) {
  for (const Deadline deadline = In(time); Clock::now() < deadline;) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(20));
  }
  return false;
}

// A folder of our own and two memory files; gone with this object.
class Scene {
 public:
  static absl::StatusOr<std::unique_ptr<Scene>> Make(int memory_mib, const std::string& elf) {
    char name[] = "/tmp/ramferry-demo-XXXXXX";
    if (::mkdtemp(name) == nullptr) return ErrnoStatus(errno, "cannot make a folder in /tmp");
    return std::unique_ptr<Scene>(new Scene(name, memory_mib, elf));
  }
  ~Scene() {
    for (const char* side : {"source", "destination"}) ::unlink(Memory(side).c_str());
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  [[nodiscard]] std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  [[nodiscard]] std::string Memory(const std::string& side) const {
    return "/dev/shm/" + std::filesystem::path(directory_).filename().string() + "-" + side;
  }
  // The same on both sides but for the memory file.
  [[nodiscard]] std::vector<std::string> Argv(const std::string& side) const {
    return {"qemu-system-x86_64",
            "-name",
            "demo",
            "-accel",
            "tcg,thread=multi",
            "-machine",
            "q35,memory-backend=ram",
            "-m",
            fmt::format("{}M", memory_mib_),
            "-object",
            fmt::format("memory-backend-file,id=ram,size={}M,share=on,mem-path={}", memory_mib_,
                        Memory(side)),
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-kernel",
            elf_,
            "-append",
            fmt::format("fill_mib={} wss_mib=16 rate=2000 tick_port=none", memory_mib_ - 32)};
  }

 private:
  Scene(std::string directory, int memory_mib, std::string elf)
      : directory_(std::move(directory)), memory_mib_(memory_mib), elf_(std::move(elf)) {}

  std::string directory_;
  int memory_mib_;
  std::string elf_;
};

class QuietObserver : public DestinationObserver {};

absl::StatusOr<Settings> Prepare(const Scene& scene) {
  RETURN_IF_ERROR(CreateAuthority({.directory = scene.Path("certs")}));
  RETURN_IF_ERROR(CreateHostCertificate(
      {.directory = scene.Path("certs"), .host = "localhost", .names = {"127.0.0.1"}}));
  std::ofstream definition(scene.Path("demo.toml"));
  definition << "name = \"demo\"\nargv = [";
  for (const std::string& word : scene.Argv("destination")) definition << '"' << word << "\", ";
  definition << "]\n";
  definition.close();
  Settings settings;
  settings.state_dir = scene.Path("state");
  settings.ca = scene.Path("certs/ca.pem");
  settings.certificate = scene.Path("certs/localhost.pem");
  settings.key = scene.Path("certs/localhost-key.pem");
  settings.listen = "127.0.0.1";
  settings.port = 0;
  settings.guests = {scene.Path("demo.toml")};
  settings.runtime_dir = scene.Path("run");
  return settings;
}

// Reads what the guest says about its own memory after the move, once it has looked at all of it.
absl::StatusOr<int> Judge(const Scene& scene, const TestGuestCounters& before) {
  std::optional<TestGuestCounters> now;
  const bool swept = WaitFor(
      [&] {
        now = CountersIn(scene.Memory("destination"));
        return now && now->sweeps >= before.sweeps + 2;
      },
      seconds(120));
  if (!now) return absl::DataLossError("the guest's mailbox is not in the destination's memory");
  Say("\nthe guest itself: {} ticks before the move, {} now; {} pages checked, {} bad{}\n",
      before.ticks, now->ticks, now->checked, now->bad,
      swept ? "; it has looked at all of its memory since" : "");
  if (!swept || now->bad != 0 || now->ticks <= before.ticks) {
    return absl::DataLossError("the guest's memory is not what it was");
  }
  return kExitOk;
}

absl::StatusOr<int> Demo(const DemoArguments& arguments) {
  std::string elf = arguments.guest_elf;
  if (elf.empty()) {
    elf = std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() /
          "tests/guests/testguest.elf";
  }
  if (::access(elf.c_str(), R_OK) != 0) return ErrnoStatus(errno, "no test guest at " + elf);
  ASSIGN_OR_RETURN(auto scene, Scene::Make(arguments.memory_mib, elf));
  ASSIGN_OR_RETURN(Settings settings, Prepare(*scene));

  std::vector<std::string> argv = scene->Argv("source");
  const std::string qmp = scene->Path("source.qmp");
  argv.insert(argv.end(), {"-qmp", "unix:" + qmp + ",server=on,wait=off"});
  ASSIGN_OR_RETURN(auto source, QemuProcess::Start(argv, scene->Path("source.log")));
  QuietObserver observer;
  ASSIGN_OR_RETURN(auto receiver, Receiver::Start(settings, observer));

  Tell("a guest of {} MiB starts and fills its memory ...\n", arguments.memory_mib);
  std::optional<TestGuestCounters> before;
  const bool up = WaitFor(
      [&] {
        before = CountersIn(scene->Memory("source"));
        return source->ended() || (before && before->state == TESTGUEST_STATE_RUNNING);
      },
      seconds(120));
  absl::StatusOr<int> code = kExitError;
  if (!up || !before || source->ended()) {
    code = absl::UnavailableError("the guest did not start: " + source->LogTail());
  } else {
    Tell("it works: {} pages filled, 2000 rewritten a second\n", before->filled_pages);
    code = MigrateCommand({.guest = "qemu:" + qmp,
                           .destination = fmt::format("localhost:{}", receiver->port()),
                           .json = arguments.json},
                          settings);
    if (*code == kExitOk) code = Judge(*scene, *before);
  }
  source->Kill();
  receiver.reset();
  // The guest was ours to begin with: end it.
  if (auto left = QmpClient::Connect(scene->Path("run/demo.qmp"), In(seconds(2))); left.ok()) {
    (*left)->Execute("quit").status().IgnoreError();
  }
  return code;
}

}  // namespace

int DemoCommand(const DemoArguments& arguments) {
  const auto code = Demo(arguments);
  if (code.ok()) return *code;
  Tell("ramferry: {}\n", Message(code.status()));
  return kExitError;
}

}  // namespace ramferry
