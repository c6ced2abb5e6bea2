#include "transport/control/pem_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "base/unique_fd.h"

namespace ramferry {

absl::StatusOr<std::string> ReadPemFile(const std::string& path) {
  constexpr off_t kMostBytes = 16 << 20;
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid() && errno == ENOENT) return absl::NotFoundError(path + " does not exist");
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0)
    return ErrnoStatus(errno, "cannot read " + path);
  if (!S_ISREG(info.st_mode) || info.st_size > kMostBytes) {
    return absl::InvalidArgumentError(path + " is not a PEM file of at most 16 MiB");
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + filled, text.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return ErrnoStatus(got < 0 ? errno : EIO, "cannot read " + path);
    filled += static_cast<size_t>(got);
  }
  return text;
}

absl::Status RefuseExisting(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0) return absl::OkStatus();
  return absl::AlreadyExistsError(
      fmt::format("{} is already there; ask for it to be overwritten, or use another place", path));
}

absl::Status WritePemFile(const std::string& path, const std::string& text, mode_t mode,
                          bool overwrite) {
  const std::string temporary = fmt::format("{}.{}.new", path, ::getpid());
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus(errno, "cannot create " + temporary);
  absl::Status status;
  const ssize_t written = ::write(fd.get(), text.data(), text.size());
  if (written != static_cast<ssize_t>(text.size())) {
    status = ErrnoStatus(written < 0 ? errno : ENOSPC, "cannot write " + temporary);
  } else if (::fchmod(fd.get(), mode) != 0 || ::fsync(fd.get()) != 0) {
    status = ErrnoStatus(errno, "cannot finish " + temporary);
  } else if (overwrite) {
    if (::rename(temporary.c_str(), path.c_str()) == 0) return absl::OkStatus();
    status = ErrnoStatus(errno, "cannot write " + path);
  } else if (::link(temporary.c_str(), path.c_str()) !=
             0) {  // fails when it is there, unlike rename
    const int error = errno;
    status = RefuseExisting(path);
    if (status.ok()) status = ErrnoStatus(error, "cannot write " + path);
  }
  ::unlink(temporary.c_str());
  return status;
}

absl::StatusOr<Authority> LoadAuthority(const std::string& directory) {
  const std::string advice = "; make an authority first (ramferry certs)";
  auto ca_pem = ReadPemFile(directory + "/ca.pem");
  auto key_pem = ReadPemFile(directory + "/ca-key.pem");
  for (const auto* file : {&ca_pem, &key_pem}) {
    if (file->ok()) continue;
    return absl::Status(file->status().code(), std::string(file->status().message()) + advice);
  }
  Authority authority{
      EvpPkeyPtr(PEM_read_bio_PrivateKey(ReadBio(*key_pem).get(), nullptr, nullptr, nullptr)),
      ParseCertificate(*ca_pem)};
  OPENSSL_cleanse(key_pem->data(), key_pem->size());
  if (authority.certificate == nullptr || authority.key == nullptr ||
      X509_check_private_key(authority.certificate.get(), authority.key.get()) != 1) {
    return absl::FailedPreconditionError(fmt::format(
        "{0}/ca.pem and {0}/ca-key.pem are not an authority's certificate and its key", directory));
  }
  return authority;
}

}  // namespace ramferry
