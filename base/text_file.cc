#include "base/text_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/status.h"
#include "base/unique_fd.h"

namespace ramferry {
namespace {

constexpr size_t kLargest = 1 << 20;

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path, const std::string& what) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, fmt::format("cannot read {} {}", what, path));
  std::string text;
  std::array<char, 16384> part;
  while (true) {
    const ssize_t got = ::read(fd.get(), part.data(), part.size());
    if (got == 0) return text;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, fmt::format("cannot read {} {}", what, path));
    text.append(part.data(), static_cast<size_t>(got));
    if (text.size() > kLargest) {
      return absl::InvalidArgumentError(fmt::format("{} {} is larger than 1 MiB", what, path));
    }
  }
}

}  // namespace ramferry
