#include "transport/tcp/channel_desk.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "base/status.h"
#include "transport/tcp/event.h"
#include "transport/tcp/handshake.h"
#include "transport/tcp/landing_site.h"
#include "transport/tcp/tls.h"
#include "transport/tcp/token_registry.h"

namespace ramferry::tcp {
namespace {

class DeskReceiver final : public ChannelReceiver {
 public:
  DeskReceiver(ChannelOffer offer, std::shared_ptr<LandingSite> site,
               std::shared_ptr<TokenRegistry> tokens)
      : offer_(std::move(offer)), site_(std::move(site)), tokens_(std::move(tokens)) {}
  ~DeskReceiver() override { StopNow(); }

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
  const std::shared_ptr<LandingSite> site_;
  const std::shared_ptr<TokenRegistry> tokens_;
};

}  // namespace

ChannelDesk::ChannelDesk(TcpOptions options, std::shared_ptr<const TlsContext> tls)
    : options_(std::move(options)),
      tls_(std::move(tls)),
      tokens_(std::make_shared<TokenRegistry>()) {}

ChannelDesk::~ChannelDesk() {
  for (Unproven& entry : unproven_) SignalEvent(entry.interrupt);
  for (Unproven& entry : unproven_) entry.thread.join();
}

absl::StatusOr<std::unique_ptr<ChannelReceiver>> ChannelDesk::Expect(
    std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels,
    ChannelOffer offer) {
  if (channels.empty() || channels.size() > kMostChannels) {
    return absl::InvalidArgumentError(fmt::format(
        "{} page channels asked for; 1 to {} are possible", channels.size(), kMostChannels));
  }
  auto site = std::make_shared<LandingSite>(regions, channels, options_.stall_timeout);
  offer.encrypted = tls_ != nullptr;
  offer.tokens = tokens_->Issue(site, channels.size());
  return std::make_unique<DeskReceiver>(std::move(offer), std::move(site), tokens_);
}

void ChannelDesk::Admit(std::unique_ptr<ByteStream> stream, const std::string& peer) {
  unproven_.remove_if([](Unproven& entry) {
    if (!entry.done.load()) return false;
    entry.thread.join();
    return true;
  });
  if (unproven_.size() >= kMostUnproven) {
    // An honest source proves itself in milliseconds, so the oldest is the least likely to be one.
    spdlog::warn("{} connections have shown no token yet: the oldest is closed", kMostUnproven);
    SignalEvent(unproven_.front().interrupt);
    unproven_.front().thread.join();
    unproven_.pop_front();
  }
  Unproven& entry = unproven_.emplace_back();
  entry.interrupt.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  entry.thread = std::thread([this, stream = std::move(stream), peer, &entry]() mutable {
    Prove(std::move(stream), peer, entry.interrupt.get());
    entry.done.store(true);
  });
}

void ChannelDesk::Prove(std::unique_ptr<ByteStream> stream, const std::string& peer,
                        int interrupt_fd) {
  absl::Status status = Introduce(std::move(stream), peer, interrupt_fd);
  if (status.ok()) return;
  if (absl::IsDeadlineExceeded(status)) status = absl::DeadlineExceededError("it showed no token");
  spdlog::warn("connection from {} refused as a page channel: {}", peer,
               std::string(status.message()));
}

absl::Status ChannelDesk::Introduce(std::unique_ptr<ByteStream> stream, const std::string& peer,
                                    int interrupt_fd) {
  const Deadline deadline = In(options_.handshake_timeout);
  if (tls_ != nullptr) {
    ASSIGN_OR_RETURN(stream, tls_->Secure(std::move(stream), interrupt_fd, deadline));
  }
  auto proof = ReadIntroduction(*stream, interrupt_fd, deadline);
  if (absl::IsFailedPrecondition(proof.status())) {
    Answer(*stream, Reply::kNoCommonVersion, {}, interrupt_fd, deadline).IgnoreError();
  }
  if (!proof.ok()) return proof.status();
  ASSIGN_OR_RETURN(const Prover prover, Prover::For(*stream));
  const std::optional<TokenRegistry::Match> match = tokens_->Take(prover, *proof);
  if (!match.has_value()) {
    Answer(*stream, Reply::kUnknownToken, {}, interrupt_fd, deadline).IgnoreError();
    return absl::PermissionDeniedError("its token is wrong, was used before, or is out of date");
  }
  RETURN_IF_ERROR(
      Answer(*stream, Reply::kAccepted, match->destination_proof, interrupt_fd, deadline));
  match->holder->Deliver(std::move(stream), peer, match->index);
  return absl::OkStatus();
}

}  // namespace ramferry::tcp
