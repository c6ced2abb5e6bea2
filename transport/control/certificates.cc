// Making an authority and host certificates. Loading them: identity.cc.
#include "transport/control/certificates.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>
#include <utility>

#include "base/status.h"
#include "transport/control/pem_files.h"

namespace ramferry {
namespace {

constexpr long kClockSlackSeconds = 3600;
constexpr long kSecondsADay = 86400;
constexpr int kMaxDays = 36500;

absl::Status OpensslError(std::string_view what) {
  return absl::InternalError(fmt::format("cannot {}: {}", what, OpensslReason()));
}

bool IsAddress(const std::string& name) {
  in6_addr ignored;
  return inet_pton(AF_INET, name.c_str(), &ignored) == 1 ||
         inet_pton(AF_INET6, name.c_str(), &ignored) == 1;
}

// Letters, digits, '-', '_' and '.': a DNS name, and safe in a file name and in OpenSSL's syntax.
bool IsHostName(const std::string& name) {
  if (name.empty() || name.size() > 253 || name.front() == '.' || name.front() == '-') return false;
  for (const char c : name) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '_' || c == '.';
    if (!good) return false;
  }
  return name.find("..") == std::string::npos;
}

bool AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const X509ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  return extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1;
}

// A new key, and a certificate (of a host as well) for it with everything but its extensions and
// signature.
absl::StatusOr<Authority> Unsigned(const std::string& common_name, int days) {
  ERR_clear_error();
  Authority made{EvpPkeyPtr(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256")),
                 X509Ptr(X509_new())};
  const BignumPtr serial(BN_new());
  X509* x = made.certificate.get();
  // A random serial number of 127 bits: positive, and at most 20 octets (RFC 5280, 4.1.2.2).
  if (made.key == nullptr || x == nullptr || serial == nullptr ||
      BN_rand(serial.get(), 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) != 1 ||
      BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(x)) == nullptr ||
      X509_set_version(x, X509_VERSION_3) != 1 || X509_set_pubkey(x, made.key.get()) != 1 ||
      // An expired one (days < 0) must still begin before it ends.
      X509_gmtime_adj(X509_getm_notBefore(x),
                      -kClockSlackSeconds + (days < 0 ? days * kSecondsADay * 2 : 0)) == nullptr ||
      X509_gmtime_adj(X509_getm_notAfter(x), days * kSecondsADay) == nullptr ||
      X509_NAME_add_entry_by_NID(X509_get_subject_name(x), NID_commonName, MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(common_name.data()),
                                 static_cast<int>(common_name.size()), -1, 0) != 1) {
    return OpensslError("make a certificate for " + common_name);
  }
  return made;
}

absl::Status WritePair(const Authority& made, const std::string& stem, bool overwrite) {
  const std::string certificate =
      Pem([&](BIO* out) { return PEM_write_bio_X509(out, made.certificate.get()); });
  std::string key = Pem([&](BIO* out) {
    return PEM_write_bio_PrivateKey(out, made.key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
  if (certificate.empty() || key.empty()) return OpensslError("encode " + stem + ".pem");
  absl::Status status = WritePemFile(stem + "-key.pem", key, 0600, overwrite);
  OPENSSL_cleanse(key.data(), key.size());
  if (status.ok()) status = WritePemFile(stem + ".pem", certificate, 0644, overwrite);
  return status;
}

absl::Status CheckDays(int days) {
  if (days != 0 && days >= -kMaxDays && days <= kMaxDays) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("a certificate cannot be valid for {} days", days));
}

}  // namespace

absl::Status CreateAuthority(const AuthorityRequest& request) {
  RETURN_IF_ERROR(CheckDays(request.days));
  if (request.name.empty() || request.name.size() > 64) {
    return absl::InvalidArgumentError("the authority's name must have 1 to 64 bytes");
  }
  if (::mkdir(request.directory.c_str(), 0755) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, "cannot make directory " + request.directory);
  }
  const std::string stem = request.directory + "/ca";
  if (!request.overwrite) {
    RETURN_IF_ERROR(RefuseExisting(stem + ".pem"));
    RETURN_IF_ERROR(RefuseExisting(stem + "-key.pem"));
  }
  ASSIGN_OR_RETURN(Authority made, Unsigned(request.name, request.days));
  X509* x = made.certificate.get();
  if (X509_set_issuer_name(x, X509_get_subject_name(x)) != 1 ||
      !AddExtension(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !AddExtension(x, x, NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !AddExtension(x, x, NID_subject_key_identifier, "hash") ||
      X509_sign(x, made.key.get(), EVP_sha256()) == 0) {
    return OpensslError("make the authority " + request.name);
  }
  return WritePair(made, stem, request.overwrite);
}

absl::Status CreateHostCertificate(const HostCertificateRequest& request) {
  RETURN_IF_ERROR(CheckDays(request.days));
  if (!IsHostName(request.host) || IsAddress(request.host) || request.host == "ca") {
    return absl::InvalidArgumentError(fmt::format(
        "'{}' cannot name a host certificate; give a host name (letters, digits, '-' and '.')",
        request.host));
  }
  std::string names = "DNS:" + request.host;
  std::set<std::string> seen = {request.host};
  for (const std::string& name : request.names) {
    if (!IsAddress(name) && !IsHostName(name)) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is neither a host name nor an IP address", name));
    }
    if (seen.insert(name).second) names += (IsAddress(name) ? ",IP:" : ",DNS:") + name;
  }
  const std::string stem = request.directory + "/" + request.host;
  if (!request.overwrite) {
    RETURN_IF_ERROR(RefuseExisting(stem + ".pem"));
    RETURN_IF_ERROR(RefuseExisting(stem + "-key.pem"));
  }
  ASSIGN_OR_RETURN(const Authority authority, LoadAuthority(request.directory));
  // A common name holds 64 bytes at most; the names that count are the alternative names.
  ASSIGN_OR_RETURN(Authority made, Unsigned(request.host.substr(0, 64), request.days));
  X509* x = made.certificate.get();
  X509* ca = authority.certificate.get();
  if (X509_set_issuer_name(x, X509_get_subject_name(ca)) != 1 ||
      !AddExtension(x, ca, NID_basic_constraints, "critical,CA:FALSE") ||
      !AddExtension(x, ca, NID_key_usage, "critical,digitalSignature") ||
      !AddExtension(x, ca, NID_ext_key_usage, "serverAuth,clientAuth") ||
      !AddExtension(x, ca, NID_subject_key_identifier, "hash") ||
      !AddExtension(x, ca, NID_authority_key_identifier, "keyid:always") ||
      !AddExtension(x, ca, NID_subject_alt_name, names) ||
      X509_sign(x, authority.key.get(), EVP_sha256()) == 0) {
    return OpensslError("make a certificate for " + request.host);
  }
  return WritePair(made, stem, request.overwrite);
}

}  // namespace ramferry
