#include "transport/dpdk/eal.h"

#include <fmt/format.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include "base/status.h"
#include "transport/dpdk/host_facts.h"

namespace ramferry::dpdk {
namespace {

// Of net_af_packet: frames that the kernel's rings hold, and how they lie in its blocks. A frame
// must fit into one slot with its headers, slots must fill a block exactly.
constexpr uint32_t kFrames = 1024;
constexpr uint32_t kSmallSlot = 2048;
constexpr uint32_t kSmallBlock = 65536;
constexpr uint32_t kLargeSlot = 9216;
constexpr uint32_t kLargeBlock = 36864;
constexpr uint32_t kSmallSlotMtu = 1900;

bool started = false;

// DPDK's log goes to a file in memory: its end is the reason in our errors.
class Words {
 public:
  Words() : file_(::open_memstream(&text_, &length_)) {
    if (file_ != nullptr) ::rte_openlog_stream(file_);
  }
  std::string Take() {
    if (file_ == nullptr) return "";
    ::fflush(file_);
    std::string all(text_, length_);
    ::rewind(file_);
    std::vector<std::string> lines;
    for (size_t begin = 0; begin < all.size();) {
      const size_t end = std::min(all.find('\n', begin), all.size());
      if (end > begin) lines.push_back(all.substr(begin, end - begin));
      begin = end + 1;
    }
    // The first of the last words usually is the cause, what follows it the consequences.
    std::string last;
    for (size_t i = lines.size() > 3 ? lines.size() - 3 : 0; i < lines.size(); ++i) {
      last += (last.empty() ? "" : "; ") + lines[i];
    }
    return last;
  }

 private:
  char* text_ = nullptr;
  size_t length_ = 0;
  std::FILE* file_;
};

Words& TheWords() {
  static auto* const words = new Words;  // DPDK may write to it as long as the process lives
  return *words;
}

std::string VirtualDevice(const DpdkOptions& options) {
  if (KindOf(options.device) == DeviceKind::kVirtual) return options.device;
  const bool small = options.mtu <= kSmallSlotMtu;
  return fmt::format("net_af_packet0,iface={},framesz={},framecnt={},blocksz={},qdisc_bypass=1",
                     options.device, small ? kSmallSlot : kLargeSlot, kFrames,
                     small ? kSmallBlock : kLargeBlock);
}

}  // namespace

std::string TakeEalWords() {
  return TheWords().Take();
}

absl::Status StartEal(const DpdkOptions& options) {
  if (started) {
    return absl::FailedPreconditionError(
        "DPDK was set up in this process before, which works only once: start ramferry again");
  }
  started = true;
  TheWords();
  std::vector<std::string> words = {"ramferry",
                                    "--no-telemetry",
                                    "--no-shconf",
                                    "--log-level=4",
                                    fmt::format("--file-prefix=ramferry-{}", ::getpid()),
                                    "-m",
                                    fmt::format("{}", options.memory_mib)};
  // The EAL binds the calling thread: to all CPUs that are allowed if none was chosen.
  const CpuSet cpus = PollingCpus(options);
  words.emplace_back("--lcores");
  words.push_back(fmt::format("0@({})", FormatCpuSet(cpus)));
  if (UsesHugepages(options)) {
    words.emplace_back("--in-memory");
  } else {
    words.emplace_back("--no-huge");
  }
  if (KindOf(options.device) == DeviceKind::kPci) {
    words.push_back("-a" + options.device);
  } else {
    words.emplace_back("--no-pci");
    words.push_back("--vdev=" + VirtualDevice(options));
  }
  // It keeps pointers into these, and moves them about.
  static std::vector<std::string>& kept = *new std::vector<std::string>;
  kept = words;
  static std::vector<char*>& arguments = *new std::vector<char*>;
  for (std::string& word : kept) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  if (::rte_eal_init(static_cast<int>(kept.size()), arguments.data()) < 0) {
    return absl::FailedPreconditionError(fmt::format("DPDK cannot be set up for {} ({}): {}",
                                                     options.device, ::rte_strerror(rte_errno),
                                                     TakeEalWords()));
  }
  return absl::OkStatus();
}

void StopEal() {
  // One of this process's own, by the prefix above; DPDK leaves it behind.
  const std::string directory = ::rte_eal_get_runtime_dir();
  ::rte_eal_cleanup();
  if (directory.find("/ramferry-") == std::string::npos) return;
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
}

}  // namespace ramferry::dpdk
