#include "transport/tcp/tls.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/local_pages.h"
#include "base/status.h"

namespace ramferry::tcp {
namespace {

constexpr char kExporterLabel[] = "EXPORTER-ramferry-page-channel";
// Copied together for SSL_write: a few full records, and still in the cache when they are
// encrypted.
constexpr size_t kStagingBytes = 64 * 1024;
// Well below what one AES-GCM key may encrypt (RFC 8446, section 5.5: some 380 GB).
constexpr uint64_t kBytesPerKey = uint64_t{64} << 30;

// The oldest entry of the library's error queue, which is emptied.
std::string TakeError() {
  const unsigned long error = ::ERR_get_error();
  ::ERR_clear_error();
  if (error == 0) return "no reason given";
  const char* reason = ::ERR_reason_error_string(error);
  return reason != nullptr ? reason : fmt::format("error {:#x}", error);
}

struct FreeSsl {
  void operator()(SSL* ssl) const { ::SSL_free(ssl); }
};
using SslPtr = std::unique_ptr<SSL, FreeSsl>;

// What a session reads from and writes to: any stream, by a BIO type of our own (BIO_meth_new(3)).
struct Below {
  std::unique_ptr<ByteStream> stream;
  absl::Status lost;   // the first error of the stream
  bool ended = false;  // the peer will send nothing more
};

Below& BelowOf(BIO* bio) {
  return *static_cast<Below*>(::BIO_get_data(bio));
}

int WriteBelow(BIO* bio, const char* data, int length) {
  Below& below = BelowOf(bio);
  ::BIO_clear_retry_flags(bio);
  const iovec piece{const_cast<char*>(data), static_cast<size_t>(length)};
  const auto sent = below.stream->Send({&piece, 1});
  if (!sent.ok()) {
    below.lost.Update(sent.status());
    return -1;
  }
  if (sent->bytes > 0 || length == 0) return static_cast<int>(sent->bytes);
  ::BIO_set_retry_write(bio);
  return -1;
}

int ReadBelow(BIO* bio, char* into, int length) {
  Below& below = BelowOf(bio);
  ::BIO_clear_retry_flags(bio);
  const auto got =
      below.stream->Receive({reinterpret_cast<std::byte*>(into), static_cast<size_t>(length)});
  if (!got.ok()) {
    below.lost.Update(got.status());
    return -1;
  }
  if (got->bytes > 0) return static_cast<int>(got->bytes);
  if (got->ended) {
    below.ended = true;
    return 0;
  }
  ::BIO_set_retry_read(bio);
  return -1;
}

long ControlBelow(BIO* bio, int command, long /*number*/, void* /*pointer*/) {
  if (command == BIO_CTRL_FLUSH) return 1;
  return command == BIO_CTRL_EOF && BelowOf(bio).ended ? 1 : 0;
}

BIO_METHOD* StreamMethod() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* own = ::BIO_meth_new(::BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "byte stream");
    ::BIO_meth_set_write(own, WriteBelow);
    ::BIO_meth_set_read(own, ReadBelow);
    ::BIO_meth_set_ctrl(own, ControlBelow);
    return own;
  }();
  return method;
}

class TlsStream final : public ByteStream, public InLocalPages {
 public:
  TlsStream(std::unique_ptr<Below> below, SslPtr ssl)
      : below_(std::move(below)), ssl_(std::move(ssl)) {
    staging_.resize(kStagingBytes);
  }

  // Copies pieces together and encrypts them. A copy that did not go out at once is kept and sent
  // again as it is: the record is made, while the guest's memory may have changed.
  absl::StatusOr<Progress> Send(std::span<const iovec> pieces, bool /*more*/) override {
    if (staged_ == sent_) {
      if (since_key_ >= kBytesPerKey) {
        ::SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED);
        since_key_ = 0;
      }
      Stage(pieces);
    }
    if (staged_ == sent_) return Progress{};
    ::ERR_clear_error();
    size_t written = 0;
    const int result =
        ::SSL_write_ex(ssl_.get(), staging_.data() + sent_, staged_ - sent_, &written);
    if (result != 1) return Explain(result);
    sent_ += written;
    since_key_ += written;
    return Progress{.bytes = written};
  }

  absl::StatusOr<Progress> Receive(std::span<std::byte> into) override {
    if (end_.has_value()) return *end_;
    ::ERR_clear_error();
    Progress progress;
    while (progress.bytes < into.size()) {
      size_t got = 0;
      const int result = ::SSL_read_ex(ssl_.get(), into.data() + progress.bytes,
                                       into.size() - progress.bytes, &got);
      if (result == 1) {
        progress.bytes += got;
        continue;
      }
      absl::StatusOr<Progress> stop = Explain(result);
      // The library tells of an end only once: keep it until the bytes before it were taken.
      if (!stop.ok() || stop->ended) end_ = stop;
      if (progress.bytes > 0) return progress;
      return stop;
    }
    return progress;
  }

  absl::StatusOr<Key> ExportKey(std::string_view context) const override {
    Key key;
    if (::SSL_export_keying_material(ssl_.get(), reinterpret_cast<unsigned char*>(key.data()),
                                     key.size(), kExporterLabel, sizeof kExporterLabel - 1,
                                     reinterpret_cast<const unsigned char*>(context.data()),
                                     context.size(), 1) != 1) {
      return absl::InternalError("cannot derive a key from a TLS session: " + TakeError());
    }
    return key;
  }

  bool encrypted() const override { return true; }

  absl::Status Wait(short wait_for, int interrupt_fd, Deadline deadline) override {
    return below_->stream->Wait(wait_for, interrupt_fd, deadline);
  }
  void EndSending() override { below_->stream->EndSending(); }
  void Shutdown() override { below_->stream->Shutdown(); }

  // One step of the handshake: OK when done, else what to wait for or why it failed.
  absl::StatusOr<Progress> Step() {
    ::ERR_clear_error();
    const int result = ::SSL_do_handshake(ssl_.get());
    if (result == 1) return Progress{};
    const int kind = ::SSL_get_error(ssl_.get(), result);
    if (kind == SSL_ERROR_WANT_READ) return Progress{.wait_for = POLLIN};
    if (kind == SSL_ERROR_WANT_WRITE) return Progress{.wait_for = POLLOUT};
    const long verdict = ::SSL_get_verify_result(ssl_.get());
    if (verdict != X509_V_OK) {
      return absl::UnauthenticatedError(fmt::format("the peer's certificate is refused: {}",
                                                    ::X509_verify_cert_error_string(verdict)));
    }
    if (kind == SSL_ERROR_SYSCALL || below_->ended) {
      return absl::UnavailableError("the connection was lost while TLS was being set up");
    }
    return absl::UnauthenticatedError("no TLS session: " + TakeError());
  }

 private:
  // As many bytes of `pieces` as fit.
  void Stage(std::span<const iovec> pieces) {
    staged_ = sent_ = 0;
    for (const iovec& piece : pieces) {
      const size_t take = std::min(piece.iov_len, staging_.size() - staged_);
      if (take == 0) break;
      std::memcpy(staging_.data() + staged_, piece.iov_base, take);
      staged_ += take;
    }
  }

  absl::StatusOr<Progress> Explain(int result) {
    switch (::SSL_get_error(ssl_.get(), result)) {
      case SSL_ERROR_WANT_READ:
        return Progress{.wait_for = POLLIN};
      case SSL_ERROR_WANT_WRITE:
        return Progress{.wait_for = POLLOUT};
      case SSL_ERROR_ZERO_RETURN:
        return Progress{.ended = true};
      case SSL_ERROR_SYSCALL:
        if (!below_->lost.ok()) return below_->lost;
        return absl::UnavailableError("the connection is lost");
      default: {
        const unsigned long error = ::ERR_peek_error();
        if (ERR_GET_LIB(error) == ERR_LIB_SSL &&
            ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
          ::ERR_clear_error();
          return Progress{.ended = true};  // the frames tell a good end from a bad one
        }
        // TLS 1.3: a client learns only here that the other end refused its certificate.
        const std::string reason = TakeError();
        if (reason.find("alert") != std::string::npos) {
          return absl::UnauthenticatedError("the peer ended the TLS session: " + reason);
        }
        return absl::UnavailableError("the TLS session broke: " + reason);
      }
    }
  }

  const std::unique_ptr<Below> below_;  // outlives the session, which points to it
  const SslPtr ssl_;
  LocalVector<std::byte> staging_;
  size_t staged_ = 0;  // bytes copied to staging_ ...
  size_t sent_ = 0;    // ... and how many of them are out
  uint64_t since_key_ = 0;
  std::optional<absl::StatusOr<Progress>> end_;  // of what can be received
};

}  // namespace

TlsContext::TlsContext(std::shared_ptr<ssl_ctx_st> context, Side side)
    : context_(std::move(context)), side_(side) {}

absl::StatusOr<std::shared_ptr<const TlsContext>> TlsContext::Create(const TcpOptions& options,
                                                                     Side side) {
  ::ERR_clear_error();
  std::shared_ptr<SSL_CTX> context(
      ::SSL_CTX_new(side == Side::kSource ? ::TLS_client_method() : ::TLS_server_method()),
      ::SSL_CTX_free);
  SSL_CTX* const ctx = context.get();
  if (ctx == nullptr) return absl::InternalError("cannot set up TLS: " + TakeError());
  const auto bad_file = [](const char* what, const std::string& file) {
    return absl::FailedPreconditionError(
        fmt::format("cannot use the {} in '{}': {}", what, file, TakeError()));
  };
  if (::SSL_CTX_load_verify_file(ctx, options.ca_file.c_str()) != 1) {
    return bad_file("CA certificate", options.ca_file);
  }
  if (::SSL_CTX_use_certificate_chain_file(ctx, options.certificate_file.c_str()) != 1) {
    return bad_file("host certificate", options.certificate_file);
  }
  if (::SSL_CTX_use_PrivateKey_file(ctx, options.key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    return bad_file("host key", options.key_file);
  }
  // 128-bit AES first: the fastest of them wherever there are AES instructions.
  if (::SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
      ::SSL_CTX_set_ciphersuites(ctx,
                                 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                 "TLS_CHACHA20_POLY1305_SHA256") != 1) {
    return absl::InternalError("cannot set up TLS 1.3: " + TakeError());
  }
  ::SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_TICKET);
  ::SSL_CTX_set_num_tickets(ctx, 0);  // no session is ever resumed
  ::SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  ::SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  // One certificate serves a host in both roles; that it says "server" or "client" is no reason to
  // refuse it, so it is checked as what it is: a certificate of our CA.
  ::SSL_CTX_set_purpose(ctx, X509_PURPOSE_ANY);
  ::SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // Header and record with one system call. A larger buffer gains nothing: the library moves what
  // is left over to the front for every record.
  ::SSL_CTX_set_read_ahead(ctx, 1);
  return std::shared_ptr<const TlsContext>(new TlsContext(std::move(context), side));
}

absl::StatusOr<std::unique_ptr<ByteStream>> TlsContext::Secure(std::unique_ptr<ByteStream> stream,
                                                               int interrupt_fd,
                                                               Deadline deadline) const {
  SslPtr ssl(::SSL_new(context_.get()));
  BIO* const bio = ::BIO_new(StreamMethod());
  if (ssl == nullptr || bio == nullptr) {
    ::BIO_free(bio);
    return absl::InternalError("cannot set up TLS: " + TakeError());
  }
  auto below = std::make_unique<Below>();
  below->stream = std::move(stream);
  ::BIO_set_data(bio, below.get());
  ::BIO_set_init(bio, 1);
  ::SSL_set_bio(ssl.get(), bio, bio);
  if (side_ == Side::kSource) {
    ::SSL_set_connect_state(ssl.get());
  } else {
    ::SSL_set_accept_state(ssl.get());
  }
  auto secured = std::make_unique<TlsStream>(std::move(below), std::move(ssl));
  while (true) {
    ASSIGN_OR_RETURN(const ByteStream::Progress step, secured->Step());
    if (step.wait_for == 0) return std::unique_ptr<ByteStream>(std::move(secured));
    RETURN_IF_ERROR(secured->Wait(step.wait_for, interrupt_fd, deadline));
  }
}

}  // namespace ramferry::tcp
