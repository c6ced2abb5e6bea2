// Loading and checking a host's identity.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "base/status.h"
#include "base/unique_fd.h"
#include "transport/control/certificates.h"
#include "transport/control/openssl_ptr.h"

namespace ramferry {
namespace {

constexpr off_t kMaxPemBytes = 1 << 20;
constexpr const char* kHowToMake = "make it with 'ramferry certs', or correct the path";

absl::StatusOr<std::string> ReadPem(const std::string& path, const char* what, bool secret) {
  if (path.empty()) return absl::InvalidArgumentError(fmt::format("no {} is configured", what));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    const int error = errno;
    const absl::Status status =
        ErrnoStatus(error, fmt::format("cannot read the {} {}", what, path));
    if (error != ENOENT) return status;
    return absl::NotFoundError(std::string(status.message()) + "; " + kHowToMake);
  }
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, "cannot stat " + path);
  if (!S_ISREG(info.st_mode) || info.st_size > kMaxPemBytes) {
    return absl::InvalidArgumentError(
        fmt::format("the {} {} is not a PEM file of at most 1 MiB", what, path));
  }
  if (secret && (info.st_mode & (S_IROTH | S_IWOTH | S_IWGRP)) != 0) {
    return absl::FailedPreconditionError(fmt::format(
        "the {} {} has mode {:04o}, so that others than its owner can read or change it; "
        "run: chmod 600 {}",
        what, path, info.st_mode & 07777u, path));
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

std::string Date(const ASN1_TIME* time) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (ASN1_TIME_print(bio.get(), time) != 1) return "an unknown date";
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

std::string FirstName(X509* certificate) {
  const GeneralNamesPtr names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_DNS) continue;
    const ASN1_STRING* text = name->d.dNSName;
    return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
            static_cast<size_t>(ASN1_STRING_length(text))};
  }
  char common_name[256] = "";
  X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, common_name,
                            sizeof common_name);
  return common_name;
}

// The certificate's validity is checked before, for its message; here is the chain.
absl::Status CheckChain(X509* certificate, const std::string& certificate_pem,
                        const std::string& ca_pem, const std::string& certificate_path,
                        const std::string& ca_path) {
  const X509StorePtr store(X509_STORE_new());
  const BioPtr ca_bio = ReadBio(ca_pem);
  int authorities = 0;
  while (const X509Ptr ca{PEM_read_bio_X509(ca_bio.get(), nullptr, nullptr, nullptr)}) {
    X509_STORE_add_cert(store.get(), ca.get());
    ++authorities;
  }
  ERR_clear_error();  // the end of the file counts as an error
  if (authorities == 0) {
    return absl::InvalidArgumentError(
        fmt::format("the authority's file {} holds no certificate; {}", ca_path, kHowToMake));
  }
  STACK_OF(X509)* intermediates = sk_X509_new_null();
  const BioPtr chain_bio = ReadBio(certificate_pem);
  while (X509* next = PEM_read_bio_X509(chain_bio.get(), nullptr, nullptr, nullptr)) {
    sk_X509_push(intermediates, next);
  }
  ERR_clear_error();
  const X509StoreCtxPtr context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), certificate, intermediates);
  const bool good = X509_verify_cert(context.get()) == 1;
  const int error = X509_STORE_CTX_get_error(context.get());
  sk_X509_pop_free(intermediates, X509_free);
  if (good) return absl::OkStatus();
  return absl::FailedPreconditionError(
      fmt::format("the authority {} does not vouch for the certificate {}: {}; give the authority "
                  "that made it, or "
                  "have this one make a new certificate",
                  ca_path, certificate_path, X509_verify_cert_error_string(error)));
}

}  // namespace

absl::StatusOr<Identity> LoadIdentity(const std::string& ca_path,
                                      const std::string& certificate_path,
                                      const std::string& key_path) {
  Identity identity;
  ASSIGN_OR_RETURN(identity.ca_pem, ReadPem(ca_path, "authority's certificate", false));
  ASSIGN_OR_RETURN(identity.certificate_pem, ReadPem(certificate_path, "certificate", false));
  ASSIGN_OR_RETURN(identity.key_pem, ReadPem(key_path, "private key", true));

  const X509Ptr certificate = ParseCertificate(identity.certificate_pem);
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("{} holds no PEM certificate: {}", certificate_path, OpensslReason()));
  }
  // An empty passphrase instead of a prompt on the terminal: a daemon has nobody to ask.
  const EvpPkeyPtr key(PEM_read_bio_PrivateKey(ReadBio(identity.key_pem).get(), nullptr, nullptr,
                                               const_cast<char*>("")));
  if (key == nullptr) {
    return absl::InvalidArgumentError(fmt::format(
        "{} holds no PEM private key without a passphrase: {}", key_path, OpensslReason()));
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    ERR_clear_error();
    return absl::FailedPreconditionError(fmt::format(
        "the private key {} does not belong to the certificate {}; give the key that was "
        "made with it",
        key_path, certificate_path));
  }
  if (X509_cmp_current_time(X509_get0_notBefore(certificate.get())) > 0) {
    return absl::FailedPreconditionError(
        fmt::format("the certificate {} is not valid before {}; check this host's clock",
                    certificate_path, Date(X509_get0_notBefore(certificate.get()))));
  }
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0) {
    return absl::FailedPreconditionError(
        fmt::format("the certificate {} has expired on {}; make a new one with 'ramferry certs'",
                    certificate_path, Date(X509_get0_notAfter(certificate.get()))));
  }
  RETURN_IF_ERROR(CheckChain(certificate.get(), identity.certificate_pem, identity.ca_pem,
                             certificate_path, ca_path));
  identity.name = FirstName(certificate.get());
  return identity;
}

}  // namespace ramferry
