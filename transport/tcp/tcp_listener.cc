#include "transport/tcp/tcp_listener.h"

#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "base/status.h"
#include "transport/tcp/handshake.h"
#include "transport/tcp/landing_site.h"
#include "transport/tcp/socket.h"
#include "transport/tcp/tls.h"
#include "transport/tcp/token_registry.h"

namespace ramferry {
namespace {

void Signal(const UniqueFd& event) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event.get(), &one, sizeof one);
}

class TcpReceiver final : public ChannelReceiver {
 public:
  TcpReceiver(ChannelOffer offer, std::shared_ptr<tcp::LandingSite> site,
              std::shared_ptr<tcp::TokenRegistry> tokens)
      : offer_(std::move(offer)), site_(std::move(site)), tokens_(std::move(tokens)) {}
  ~TcpReceiver() override { StopNow(); }

  const ChannelOffer& offer() const override { return offer_; }
  absl::Status status() const override { return site_->status(); }
  ChannelStats stats() const override { return site_->stats(); }
  void Stop() override { StopNow(); }

 private:
  void StopNow() {
    tokens_->Withdraw(site_.get());
    site_->Stop();
  }

  const ChannelOffer offer_;
  const std::shared_ptr<tcp::LandingSite> site_;
  const std::shared_ptr<tcp::TokenRegistry> tokens_;
};

}  // namespace

TcpListener::TcpListener(UniqueFd socket, std::string address, uint16_t port, TcpOptions options,
                         std::shared_ptr<const tcp::TlsContext> tls)
    : socket_(std::move(socket)),
      address_(std::move(address)),
      port_(port),
      options_(std::move(options)),
      tls_(std::move(tls)),
      tokens_(std::make_shared<tcp::TokenRegistry>()),
      stop_event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      accepting_([this] { Accept(); }) {}

absl::StatusOr<std::unique_ptr<TcpListener>> TcpListener::Create(const std::string& address,
                                                                 uint16_t port,
                                                                 const TcpOptions& options) {
  std::shared_ptr<const tcp::TlsContext> tls;
  if (options.encryption) {
    ASSIGN_OR_RETURN(tls, tcp::TlsContext::Create(options, tcp::TlsContext::Side::kDestination));
  }
  ASSIGN_OR_RETURN(UniqueFd socket, tcp::ListenAt(address, port));
  ASSIGN_OR_RETURN(const uint16_t bound, tcp::PortOf(socket));
  return std::unique_ptr<TcpListener>(
      new TcpListener(std::move(socket), address, bound, options, std::move(tls)));
}

TcpListener::~TcpListener() {
  Signal(stop_event_);
  accepting_.join();
  for (Unproven& entry : unproven_) Signal(entry.interrupt);
  for (Unproven& entry : unproven_) entry.thread.join();
}

absl::StatusOr<std::unique_ptr<ChannelReceiver>> TcpListener::Expect(
    std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels) {
  if (channels.empty() || channels.size() > kMostChannels) {
    return absl::InvalidArgumentError(fmt::format(
        "{} page channels asked for; 1 to {} are possible", channels.size(), kMostChannels));
  }
  auto site = std::make_shared<tcp::LandingSite>(regions, channels, options_.stall_timeout);
  ChannelOffer offer{.transport = transport(), .port = port_, .encrypted = tls_ != nullptr};
  // What listens on every address is reached where the control channel was.
  if (address_ != "0.0.0.0" && address_ != "::") offer.address = address_;
  offer.tokens = tokens_->Issue(site, channels.size());
  return std::make_unique<TcpReceiver>(std::move(offer), std::move(site), tokens_);
}

void TcpListener::Accept() {
  while (true) {
    pollfd waiting[2] = {{.fd = socket_.get(), .events = POLLIN},
                         {.fd = stop_event_.get(), .events = POLLIN}};
    if (::poll(waiting, 2, -1) < 0 && errno != EINTR) return;
    if (waiting[1].revents != 0) return;
    UniqueFd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.valid()) {
      Admit(std::move(socket));
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      spdlog::warn("cannot take a page channel: {}",
                   std::string(ErrnoStatus(errno, "accept").message()));
      // The connection stays in the queue: try again when something may have been freed.
      pollfd stop{.fd = stop_event_.get(), .events = POLLIN};
      ::poll(&stop, 1, 100);
    }
  }
}

void TcpListener::Admit(UniqueFd socket) {
  unproven_.remove_if([](Unproven& entry) {
    if (!entry.done.load()) return false;
    entry.thread.join();
    return true;
  });
  if (unproven_.size() >= kMostUnproven) {
    // An honest source proves itself in milliseconds, so the oldest is the least likely to be one.
    spdlog::warn("{} connections have shown no token yet: the oldest is closed", kMostUnproven);
    Signal(unproven_.front().interrupt);
    unproven_.front().thread.join();
    unproven_.pop_front();
  }
  const std::string peer = tcp::PeerOf(socket);
  Unproven& entry = unproven_.emplace_back();
  entry.interrupt.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  entry.thread = std::thread([this, socket = std::move(socket), peer, &entry]() mutable {
    Prove(std::move(socket), peer, entry.interrupt.get());
    entry.done.store(true);
  });
}

void TcpListener::Prove(UniqueFd socket, const std::string& peer, int interrupt_fd) {
  absl::Status status = Introduce(std::move(socket), peer, interrupt_fd);
  if (status.ok()) return;
  if (absl::IsDeadlineExceeded(status)) status = absl::DeadlineExceededError("it showed no token");
  spdlog::warn("connection from {} refused as a page channel: {}", peer,
               std::string(status.message()));
}

absl::Status TcpListener::Introduce(UniqueFd socket, const std::string& peer, int interrupt_fd) {
  const Deadline deadline = In(options_.handshake_timeout);
  RETURN_IF_ERROR(tcp::Prepare(socket, options_.stall_timeout));
  std::unique_ptr<tcp::ByteStream> stream;
  if (tls_ != nullptr) {
    ASSIGN_OR_RETURN(stream, tls_->Secure(std::move(socket), interrupt_fd, deadline));
  } else {
    stream = tcp::PlainStream(std::move(socket));
  }
  auto proof = tcp::ReadIntroduction(*stream, interrupt_fd, deadline);
  if (absl::IsFailedPrecondition(proof.status())) {
    tcp::Answer(*stream, tcp::Reply::kNoCommonVersion, {}, interrupt_fd, deadline).IgnoreError();
  }
  if (!proof.ok()) return proof.status();
  ASSIGN_OR_RETURN(const tcp::Prover prover, tcp::Prover::For(*stream));
  const std::optional<tcp::TokenRegistry::Match> match = tokens_->Take(prover, *proof);
  if (!match.has_value()) {
    tcp::Answer(*stream, tcp::Reply::kUnknownToken, {}, interrupt_fd, deadline).IgnoreError();
    return absl::PermissionDeniedError("its token is wrong, was used before, or is out of date");
  }
  RETURN_IF_ERROR(tcp::Answer(*stream, tcp::Reply::kAccepted, match->destination_proof,
                              interrupt_fd, deadline));
  match->holder->Deliver(std::move(stream), peer, match->index);
  return absl::OkStatus();
}

}  // namespace ramferry
