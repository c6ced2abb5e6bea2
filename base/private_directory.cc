#include "base/private_directory.h"

#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "base/status.h"
#include "fmt/format.h"

namespace ramferry {

absl::Status EnsurePrivateDirectory(const std::string& path, const std::string& what) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, fmt::format("cannot make the {} {}", what, path));
  }
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    return ErrnoStatus(errno, fmt::format("cannot look at the {} {}", what, path));
  }
  if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(fmt::format("the {} {} is no directory", what, path));
  }
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return absl::FailedPreconditionError(
        fmt::format("others than its owner can write to the {} {} (mode {:04o}); run: chmod 700 {}",
                    what, path, info.st_mode & 07777U, path));
  }
  return absl::OkStatus();
}

}  // namespace ramferry
