// A monitor that answers with whatever it likes. The bytes are QMP lines: first through the parser
// alone, cut at two different places, which must not matter; then as the answers to all that an
// inventory asks for, one line an answer, over a socket, with nothing worse than an error.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "hypervisor-glue/qemu/inventory.h"
#include "hypervisor-glue/qemu/migration_settings.h"
#include "hypervisor-glue/qemu/preflight.h"

namespace {

using namespace ramferry;

std::vector<std::string> Parse(std::string_view bytes, size_t cut, bool& ok) {
  QmpParser parser;
  std::vector<std::string> messages;
  ok = true;
  for (const std::string_view piece : {bytes.substr(0, cut), bytes.substr(cut)}) {
    ok = ok && parser.Feed(piece).ok();
    if (!ok) break;
  }
  while (auto message = parser.Next()) messages.push_back(message->dump());
  return messages;
}

// The socket of one monitor for the whole run.
class Monitor {
 public:
  Monitor() : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    path_ = "/tmp/ramferry-fuzz-" + std::to_string(::getpid()) + ".qmp";
    ::unlink(path_.c_str());
    sockaddr_un address{.sun_family = AF_UNIX};
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener_.get(), 1) != 0) {
      std::abort();
    }
  }
  ~Monitor() { ::unlink(path_.c_str()); }
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

  // Greets one client, and answers each of its lines with the next of `lines`, until they are all
  // said.
  void Serve(std::string_view lines) const {
    const UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    Say(client.get(), "{\"QMP\": {}}\n");
    std::string_view next = "{\"return\": {}}\n";
    char byte = 0;
    bool negotiated = false;
    while (!next.empty()) {
      // A line that was no answer (an event, say) leaves the client waiting: then the next one goes
      // out unasked. The negotiation is always answered as it should be.
      pollfd asked{.fd = client.get(), .events = POLLIN};
      if (::poll(&asked, 1, negotiated ? 2 : -1) == 1) {
        if (::recv(client.get(), &byte, 1, 0) != 1) return;
        if (byte != '\n') continue;
      }
      Say(client.get(), next);
      negotiated = true;
      const size_t end = std::min(lines.find('\n'), lines.size());
      next = lines.substr(0, std::min(end + 1, lines.size()));
      lines.remove_prefix(next.size());
    }
  }

 private:
  static void Say(int socket, std::string_view text) {
    if (::send(socket, text.data(), text.size(), MSG_NOSIGNAL) < 0) return;
  }
  UniqueFd listener_;
  std::string path_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  bool one_ok = false;
  bool other_ok = false;
  const auto one = Parse(bytes, bytes.size() * data[0] / 256, one_ok);
  const auto other = Parse(bytes, 0, other_ok);
  if (one_ok != other_ok || (one_ok && one != other)) std::abort();
  if (!one_ok || one.empty() || bytes.size() > 60'000) return 0;

  static const Monitor monitor;
  std::thread server([bytes] { monitor.Serve(bytes); });
  {
    const auto client = QmpClient::Connect(monitor.path(), In(std::chrono::seconds(60)));
    if (!client.ok()) std::abort();
    const auto inventory = TakeInventory(**client);
    if (inventory.ok()) {
      static_cast<void>(SourceReasons(*inventory));
      static_cast<void>(DestinationReasons(Describe(*inventory), *inventory));
    } else if (inventory.status().message().empty()) {
      std::abort();
    }
    static_cast<void>(MigrationSettings::Read(**client));
  }
  server.join();
  return 0;
}
