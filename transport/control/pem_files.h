// PEM texts in files, and the authority of a directory. For the .cc files of certificates.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "transport/control/openssl_ptr.h"

namespace ramferry {

// A whole file of at most 16 MiB. NotFound when there is none.
[[nodiscard]] absl::StatusOr<std::string> ReadPemFile(const std::string& path);

// Writes `text` to `path` in one step: a reader sees the old file or the whole new one.
// AlreadyExists unless `overwrite`.
[[nodiscard]] absl::Status WritePemFile(const std::string& path, const std::string& text,
                                        mode_t mode, bool overwrite);
// AlreadyExists when there is such a file, with what to do.
[[nodiscard]] absl::Status RefuseExisting(const std::string& path);

// What `write` puts into a BIO, as text; "" when it fails.
template <class Writer>
std::string Pem(const Writer& write) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || write(bio.get()) != 1) return "";
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

struct Authority {
  EvpPkeyPtr key;
  X509Ptr certificate;
};
// DIRECTORY/ca.pem and DIRECTORY/ca-key.pem.
[[nodiscard]] absl::StatusOr<Authority> LoadAuthority(const std::string& directory);

}  // namespace ramferry
