#include "transport/control/revocation.h"

#include <fmt/format.h>

#include "base/status.h"
#include "transport/control/openssl_ptr.h"
#include "transport/control/pem_files.h"

namespace ramferry {
namespace {

using CrlPtr = std::unique_ptr<X509_CRL, OpensslFree<X509_CRL_free>>;
using RevokedPtr = std::unique_ptr<X509_REVOKED, OpensslFree<X509_REVOKED_free>>;
using TimePtr = std::unique_ptr<ASN1_TIME, OpensslFree<ASN1_TIME_free>>;

constexpr long kListSlackSeconds = 3600;
// A list that Ramferry makes: as long as an authority of Ramferry's.
constexpr long kListSeconds = 3650L * 86400;

CrlPtr NextList(BIO* bio) {
  return CrlPtr(PEM_read_bio_X509_CRL(bio, nullptr, nullptr, nullptr));
}

bool StampAndSign(X509_CRL* list, const Authority& authority) {
  const TimePtr now(X509_gmtime_adj(nullptr, -kListSlackSeconds));
  const TimePtr next(X509_gmtime_adj(nullptr, kListSeconds));
  return X509_CRL_set_version(list, X509_CRL_VERSION_2) == 1 &&
         X509_CRL_set_issuer_name(list, X509_get_subject_name(authority.certificate.get())) == 1 &&
         X509_CRL_set1_lastUpdate(list, now.get()) == 1 &&
         X509_CRL_set1_nextUpdate(list, next.get()) == 1 && X509_CRL_sort(list) == 1 &&
         X509_CRL_sign(list, authority.key.get(), EVP_sha256()) != 0;
}

bool Add(X509_CRL* list, X509* certificate) {
  RevokedPtr entry(X509_REVOKED_new());
  const TimePtr now(X509_gmtime_adj(nullptr, 0));
  if (X509_REVOKED_set_serialNumber(entry.get(), X509_get_serialNumber(certificate)) != 1 ||
      X509_REVOKED_set_revocationDate(entry.get(), now.get()) != 1 ||
      X509_CRL_add0_revoked(list, entry.get()) != 1) {
    return false;
  }
  (void)entry.release();  // the list's now
  return true;
}

}  // namespace

absl::Status RevokeCertificate(const std::string& directory, const std::string& host) {
  ASSIGN_OR_RETURN(const Authority authority, LoadAuthority(directory));
  const std::string path = fmt::format("{}/{}.pem", directory, host);
  ASSIGN_OR_RETURN(const std::string pem, ReadPemFile(path));
  const X509Ptr certificate = ParseCertificate(pem);
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(path + " holds no PEM certificate");
  }
  const std::string list_path = directory + "/crl.pem";
  CrlPtr list(X509_CRL_new());
  const auto before = ReadPemFile(list_path);
  if (before.ok()) {
    list = NextList(ReadBio(*before).get());
    if (list == nullptr)
      return absl::InvalidArgumentError(list_path + " holds no PEM revocation list");
  } else if (!absl::IsNotFound(before.status())) {
    return before.status();
  }
  X509_REVOKED* known = nullptr;
  if (X509_CRL_get0_by_serial(list.get(), &known, X509_get_serialNumber(certificate.get())) == 0 &&
      !Add(list.get(), certificate.get())) {
    return absl::InternalError(fmt::format("cannot revoke {}: {}", path, OpensslReason()));
  }
  const std::string text =
      StampAndSign(list.get(), authority)
          ? Pem([&](BIO* out) { return PEM_write_bio_X509_CRL(out, list.get()); })
          : "";
  if (text.empty()) {
    return absl::InternalError(fmt::format("cannot sign {}: {}", list_path, OpensslReason()));
  }
  return WritePemFile(list_path, text, 0644, /*overwrite=*/true);
}

absl::Status CheckNotRevoked(const std::string& chain_pem, const std::string& ca_pem,
                             const std::string& list_path) {
  if (list_path.empty()) return absl::OkStatus();
  const auto unknown = [&list_path](std::string_view why) {
    return absl::FailedPreconditionError(
        fmt::format("whether its certificate is revoked cannot be told: {}; put the "
                    "authority's present list into {}, or take it out of the configuration",
                    why, list_path));
  };
  const auto lists = ReadPemFile(list_path);
  if (!lists.ok()) return unknown(Message(lists.status()));
  ERR_clear_error();
  const X509StorePtr store(X509_STORE_new());
  int count = 0;
  const BioPtr list_bio = ReadBio(*lists);
  while (const CrlPtr list = NextList(list_bio.get())) {
    X509_STORE_add_crl(store.get(), list.get());
    ++count;
  }
  if (count == 0) return unknown(fmt::format("{} holds no PEM revocation list", list_path));
  const BioPtr ca_bio = ReadBio(ca_pem);
  while (const X509Ptr ca{PEM_read_bio_X509(ca_bio.get(), nullptr, nullptr, nullptr)}) {
    X509_STORE_add_cert(store.get(), ca.get());
  }
  X509_STORE_set_flags(store.get(), X509_V_FLAG_CRL_CHECK);
  const X509Ptr certificate = ParseCertificate(chain_pem);
  if (certificate == nullptr) return unknown("it has shown none");
  STACK_OF(X509)* intermediates = sk_X509_new_null();
  const BioPtr chain_bio = ReadBio(chain_pem);
  while (X509* next = PEM_read_bio_X509(chain_bio.get(), nullptr, nullptr, nullptr)) {
    sk_X509_push(intermediates, next);
  }
  const X509StoreCtxPtr context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), certificate.get(), intermediates);
  const bool good = X509_verify_cert(context.get()) == 1;
  const int error = X509_STORE_CTX_get_error(context.get());
  sk_X509_pop_free(intermediates, X509_free);
  ERR_clear_error();  // the ends of the texts count as errors
  if (good) return absl::OkStatus();
  if (error == X509_V_ERR_CERT_REVOKED) {
    return absl::PermissionDeniedError(
        fmt::format("its certificate is revoked (list {})", list_path));
  }
  return unknown(X509_verify_cert_error_string(error));
}

}  // namespace ramferry
