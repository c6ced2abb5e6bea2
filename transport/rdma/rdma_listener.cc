#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <openssl/rand.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <list>
#include <mutex>
#include <thread>

#include "base/status.h"
#include "fmt/format.h"
#include "transport/rdma/check.h"
#include "transport/rdma/cm_link.h"
#include "transport/rdma/device_events.h"
#include "transport/rdma/landing.h"
#include "transport/rdma/needs.h"
#include "transport/rdma/pin_limit.h"
#include "transport/rdma/rails.h"
#include "transport/rdma/rdma_transport.h"
#include "transport/rdma/wire.h"

namespace ramferry::rdma {
namespace {

absl::StatusOr<std::string> NewToken() {
  std::string token(32, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(token.data()), 32) != 1) {
    return absl::InternalError("no random bytes for a channel token from OpenSSL");
  }
  return token;
}

// One thread takes connections and disconnects; each channel has a thread that serves it.
class RdmaReceiver : public ChannelReceiver {
 public:
  static absl::StatusOr<std::unique_ptr<ChannelReceiver>> Listen(
      const RdmaOptions& options, const RdmaNeeds& needs, std::span<const MappedRegion> regions,
      std::span<const ChannelPlace> channels);
  ~RdmaReceiver() override { Stop(); }

  [[nodiscard]] const ChannelOffer& offer() const override { return offer_; }
  [[nodiscard]] absl::Status status() const override {
    const std::lock_guard lock(mutex_);
    return status_;
  }
  // One-sided: this host's CPU does not see the pages come in, so there is nothing to count.
  [[nodiscard]] ChannelStats stats() const override { return {}; }
  void Stop() override;

 private:
  struct Served {
    rdma_cm_id* id = nullptr;
    std::unique_ptr<ChannelService> service;
    std::thread thread;
  };

  // One for each device that channels came over. The landing goes before the memory.
  struct Rail {
    std::unique_ptr<CmMemory> memory;
    std::unique_ptr<Landing> landing;
  };

  RdmaReceiver(const RdmaOptions& options, const RdmaNeeds& needs,
               std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels)
      : options_(options),
        regions_(regions.begin(), regions.end()),
        places_(channels.begin(), channels.end()),
        needs_(needs),
        pin_budget_(BudgetWithin(PinLimit(), options.pin_budget, needs)),
        pins_(std::make_shared<PinAccount>(pin_budget_)) {}
  [[nodiscard]] absl::Status Bind();
  void Run();
  void TakeEvent();
  [[nodiscard]] absl::Status Accept(rdma_cm_id* id, std::span<const std::byte> greeting);
  [[nodiscard]] absl::StatusOr<Rail*> RailOf(ibv_context* device);
  void Note(const absl::Status& status);

  const RdmaOptions options_;
  const std::vector<MappedRegion> regions_;
  const std::vector<ChannelPlace> places_;  // one a token
  const RdmaNeeds needs_;
  const ByteCount pin_budget_;
  ChannelOffer offer_;
  std::vector<std::string> unused_tokens_;
  UniqueFd stop_;
  EventChannel events_;
  rdma_cm_id* listening_ = nullptr;
  std::list<Rail> rails_;
  std::shared_ptr<PinAccount> pins_;
  std::list<Served> served_;  // the accepting thread's, until it has ended
  std::thread thread_;
  mutable std::mutex mutex_;
  absl::Status status_;  // guarded by mutex_
};

absl::StatusOr<std::unique_ptr<ChannelReceiver>> RdmaReceiver::Listen(
    const RdmaOptions& options, const RdmaNeeds& needs, std::span<const MappedRegion> regions,
    std::span<const ChannelPlace> channels) {
  std::unique_ptr<RdmaReceiver> receiver(new RdmaReceiver(options, needs, regions, channels));
  RETURN_IF_ERROR(receiver->Bind());
  receiver->thread_ = std::thread([raw = receiver.get()] { raw->Run(); });
  return receiver;
}

absl::Status RdmaReceiver::Bind() {
  for (size_t i = 0; i < places_.size(); ++i) {
    ASSIGN_OR_RETURN(std::string token, NewToken());
    offer_.tokens.push_back(std::move(token));
  }
  unused_tokens_ = offer_.tokens;
  stop_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  events_.reset(rdma_create_event_channel());
  if (!events_) return ErrnoStatus(errno, "no RDMA connection manager (modprobe rdma_ucm)");
  ::fcntl(events_->fd, F_SETFL, ::fcntl(events_->fd, F_GETFL) | O_NONBLOCK);
  if (rdma_create_id(events_.get(), &listening_, nullptr, RDMA_PS_TCP) != 0) {
    return ErrnoStatus(errno, "rdma_create_id");
  }
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_PASSIVE;
  hints.ai_family = options_.address.empty() ? AF_INET6 : AF_UNSPEC;  // "::" takes IPv4 as well
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(options_.address.empty() ? nullptr : options_.address.c_str(), "0", &hints,
                    &found) != 0) {
    return absl::InvalidArgumentError(
        fmt::format("\"{}\" is not a numeric address to listen on", options_.address));
  }
  const int bound = rdma_bind_addr(listening_, found->ai_addr);
  const int error = errno;
  ::freeaddrinfo(found);
  if (bound != 0) {
    return ErrnoStatus(error, fmt::format("no RDMA device has the address {}", options_.address));
  }
  if (rdma_listen(listening_, static_cast<int>(places_.size())) != 0) {
    return ErrnoStatus(errno, "cannot listen for RDMA connections");
  }
  offer_.transport = "rdma";
  offer_.address = options_.address;
  offer_.port = ntohs(rdma_get_src_port(listening_));
  if (options_.address.empty()) offer_.other_addresses = RailAddresses(needs_);
  return absl::OkStatus();
}

void RdmaReceiver::Run() {
  for (;;) {
    pollfd fds[] = {{stop_.get(), POLLIN, 0}, {events_->fd, POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0) continue;
    if (fds[0].revents != 0) return;
    TakeEvent();
  }
}

void RdmaReceiver::TakeEvent() {
  rdma_cm_event* event = nullptr;
  if (rdma_get_cm_event(events_.get(), &event) != 0) return;
  const rdma_cm_event_type type = event->event;
  rdma_cm_id* const id = event->id;
  std::vector<std::byte> data;
  if (type == RDMA_CM_EVENT_CONNECT_REQUEST && event->param.conn.private_data != nullptr) {
    const auto* bytes = static_cast<const std::byte*>(event->param.conn.private_data);
    data.assign(bytes, bytes + event->param.conn.private_data_len);
  }
  rdma_ack_cm_event(event);
  if (type == RDMA_CM_EVENT_CONNECT_REQUEST) {
    // A stranger's request is refused and changes nothing: the source may still come.
    (void)Accept(id, data);
    return;
  }
  const auto served =
      std::find_if(served_.begin(), served_.end(), [&](const Served& one) { return one.id == id; });
  if (served == served_.end()) return;
  if (absl::Status failure = Consequence(type); !failure.ok()) {
    served->service->Interrupt(std::move(failure));
  }
}

absl::Status RdmaReceiver::Accept(rdma_cm_id* id, std::span<const std::byte> bytes) {
  const auto refuse = [&](absl::Status status) {
    const std::string text(status.message().substr(0, 120));
    rdma_reject(id, text.c_str(), static_cast<uint8_t>(text.size()));
    rdma_destroy_id(id);
    return status;
  };
  const auto greeting = ParseGreeting(bytes);
  if (!greeting.ok()) return refuse(greeting.status());
  const auto token = std::find_if(unused_tokens_.begin(), unused_tokens_.end(),
                                  [&](const std::string& one) { return Proves(*greeting, one); });
  if (token == unused_tokens_.end()) {
    return refuse(absl::UnauthenticatedError("no channel with this token is expected here"));
  }
  const auto issued = std::find(offer_.tokens.begin(), offer_.tokens.end(), *token);
  const auto index = static_cast<size_t>(issued - offer_.tokens.begin());
  const CpuSet& cpus = places_[index].cpus;
  const BoundForAWhile beside_its_memory(cpus);  // the queues are touched first here
  const auto found = RailOf(id->verbs);
  if (!found.ok()) return refuse(found.status());
  CmMemory& memory = *(*found)->memory;
  Welcome welcome = MakeWelcome(*greeting, *token);
  unused_tokens_.erase(token);
  welcome.pin_budget = pin_budget_.value();
  welcome.largest_registration = memory.largest_registration();
  welcome.most_pieces = PiecesWithin(memory.most_registrations(), offer_.tokens.size());

  auto link = CmLink::Create(id, nullptr, memory,  // owns the id from here on
                             {options_.traffic_class, options_.service_level});
  if (!link.ok()) {
    Note(link.status());
    return link.status();
  }
  CmLink* const raw = link->get();
  auto service = ChannelService::Create(*std::move(link), memory, *(*found)->landing);
  if (!service.ok()) {
    Note(service.status());
    return service.status();
  }
  if (absl::Status up = raw->BringUp(); !up.ok()) {
    Note(up);
    return up;
  }
  welcome.proof_rkey = (*service)->proof_place().rkey;
  welcome.proof_address = (*service)->proof_place().address;
  rdma_conn_param parameters{};
  parameters.qp_num = raw->queue_pair();
  parameters.private_data = &welcome;
  parameters.private_data_len = sizeof welcome;
  parameters.rnr_retry_count = 7;
  if (rdma_accept(raw->id(), &parameters) != 0) {
    Note(ErrnoStatus(errno, "cannot accept an RDMA connection"));
    return status();
  }
  served_.push_back({id, *std::move(service), {}});
  served_.back().thread = std::thread([this, one = served_.back().service.get(), cpus, index] {
    BindThisThread(cpus).IgnoreError();  // slower elsewhere, and no harm
    NameThisThread("rf-land", index);
    Note(one->Serve());
  });
  return absl::OkStatus();
}

absl::StatusOr<RdmaReceiver::Rail*> RdmaReceiver::RailOf(ibv_context* device) {
  for (Rail& rail : rails_) {
    if (rail.memory->device() == device) return &rail;
  }
  ASSIGN_OR_RETURN(auto memory, CmMemory::Create(device, options_.on_demand));
  RETURN_IF_ERROR(CheckDevice(memory->limits(), needs_));
  auto landing = std::make_unique<Landing>(regions_, *memory, pins_);
  rails_.push_back({std::move(memory), std::move(landing)});
  return &rails_.back();
}

void RdmaReceiver::Note(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  if (status_.ok()) status_ = status;
}

void RdmaReceiver::Stop() {
  if (thread_.joinable()) {
    ::eventfd_write(stop_.get(), 1);
    thread_.join();
  }
  for (Served& one : served_) {
    one.service->Interrupt(absl::CancelledError("the destination stopped receiving"));
  }
  for (Served& one : served_) {
    if (one.thread.joinable()) one.thread.join();
  }
  // Queue pairs first: from then on nobody can write here, whatever keys he has.
  served_.clear();
  if (listening_ != nullptr) {
    rdma_destroy_id(listening_);
    listening_ = nullptr;
  }
  rails_.clear();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChannelReceiver>> RdmaListener::Expect(
    std::span<const MappedRegion> regions, std::span<const ChannelPlace> channels) {
  RETURN_IF_ERROR(RdmaUsable());
  for (const MappedRegion& region : regions) {
    if (!region.can_register) {
      return absl::FailedPreconditionError(
          "the memory of this guest cannot be registered with an RDMA device here (a Xen domain)");
    }
  }
  const RdmaNeeds needs = NeedsOf(regions, options_.pin_budget, channels.size());
  RETURN_IF_ERROR(CheckPinning(PinLimit(), needs));
  RETURN_IF_ERROR(CheckDevices(ProbeRdma(), needs));
  return RdmaReceiver::Listen(options_, needs, regions, channels);
}

}  // namespace ramferry::rdma
