#include "transport/control/server.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>
#include <utility>

#include "base/status.h"
#include "transport/control/codec.h"
#include "transport/control/connection_limits.h"
#include "transport/control/control.grpc.pb.h"
#include "transport/control/door.h"
#include "transport/control/grpc_log.h"
#include "transport/control/message_check.h"
#include "transport/control/peer.h"
#include "transport/control/stream.h"

namespace ramferry {
namespace {

using std::chrono::seconds;

constexpr int kHandshakeMilliseconds = 10'000;
constexpr int kMaxCallsPerConnection = 16;
// Of a connection without a call.
constexpr int kIdleMilliseconds = 60'000;

grpc::Status ToGrpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()),
          PresentableReason(std::string(status.message()))};
}

// Lives until gRPC's last word about the call.
class ServerStream : public grpc::ServerBidiReactor<v1::Frame, v1::Frame>, public ControlStream {
 public:
  static std::shared_ptr<ServerStream> Make(grpc::CallbackServerContext* context,
                                            std::string peer_name) {
    auto stream = std::make_shared<ServerStream>(context);
    stream->self_ = stream;
    stream->SetPeer(std::move(peer_name), AddressOfPeer(context->peer()));
    return stream;
  }
  explicit ServerStream(grpc::CallbackServerContext* context)
      : ControlStream(Side::kServer), context_(context) {}

  void Accept() {
    context_->AddInitialMetadata(kAcceptedKey, "1");
    StartSendInitialMetadata();
    Begin();
  }

 private:
  void OnReadDone(bool ok) override { ReadDone(ok); }
  void OnWriteDone(bool ok) override { WriteDone(ok); }
  void OnCancel() override { Lost(); }
  void OnDone() override {
    const std::shared_ptr<ServerStream> keep = std::move(self_);
    Ended(absl::OkStatus());
  }

  void StartRead(v1::Frame* frame) override { ServerBidiReactor::StartRead(frame); }
  void StartWrite(const v1::Frame* frame) override { ServerBidiReactor::StartWrite(frame); }
  void StartEnd() override { Finish(grpc::Status::OK); }
  void Release() override {}
  void StartCancel() override { context_->TryCancel(); }

  grpc::CallbackServerContext* const context_;  // gone after OnDone; StartEnd comes before that
  std::shared_ptr<ServerStream> self_;          // until OnDone
};

// A call that ends at once, with a reason.
class Refusal : public grpc::ServerBidiReactor<v1::Frame, v1::Frame> {
 public:
  explicit Refusal(const absl::Status& reason) { Finish(ToGrpc(reason)); }
  void OnDone() override { delete this; }
};

class Server : public ControlServer, private v1::Control::CallbackService {
 public:
  Server(const ControlServerOptions& options, ControlService& service)
      : service_(service),
        ca_pem_(options.identity.ca_pem),
        max_migrations_(options.max_migrations),
        policy_(options.policy) {}
  ~Server() override {
    while (!Stop(In(seconds(60))).ok()) {
    }
  }

  absl::Status Listen(const ControlServerOptions& options);
  uint16_t port() const override { return door_->port(); }
  void SetPolicy(PeerPolicy policy) override {
    const std::lock_guard lock(policy_mutex_);
    policy_ = std::move(policy);
  }
  absl::Status Stop(Deadline deadline) override;

 private:
  struct Migration {
    std::shared_ptr<ServerStream> stream;
    std::thread thread;
    bool finished = false;
  };

  grpc::ServerBidiReactor<v1::Frame, v1::Frame>* Migrate(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Settle(grpc::CallbackServerContext* context,
                                   const v1::SettleRequest* request,
                                   v1::SettleReply* reply) override;
  grpc::ServerUnaryReactor* Confirm(grpc::CallbackServerContext* context,
                                    const v1::ConfirmRequest* request,
                                    v1::ConfirmReply* reply) override;

  // The peer's proven name, if it may come.
  absl::StatusOr<std::string> Admit(const grpc::CallbackServerContext& context) const;
  void Run(Migration& migration);
  std::list<Migration> TakeFinished();  // lock held; their threads are to be joined without it

  ControlService& service_;
  const std::string ca_pem_;
  const size_t max_migrations_;
  std::unique_ptr<Door> door_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;

  mutable std::mutex policy_mutex_;
  PeerPolicy policy_;  // guarded by policy_mutex_

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  size_t running_ = 0;
  std::list<Migration> migrations_;
};

absl::Status Server::Listen(const ControlServerOptions& options) {
  RedirectGrpcLog();
  grpc::SslServerCredentialsOptions tls(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  tls.pem_root_certs = options.identity.ca_pem;
  tls.pem_key_cert_pairs = {
      {.private_key = options.identity.key_pem, .cert_chain = options.identity.certificate_pem}};
  ASSIGN_OR_RETURN(door_, Door::Open(options.address, options.port));
  grpc::ServerBuilder builder;
  using Builder = grpc::ServerBuilder::experimental_type;
  acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      Builder::ExternalConnectionType::FROM_FD, grpc::SslServerCredentials(tls));
  builder.RegisterService(this);
  builder.SetMaxReceiveMessageSize(kMaxFrameBytes);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no limit
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kLeastPingIntervalMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kIdleMilliseconds);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxCallsPerConnection);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    return absl::InvalidArgumentError("this host's certificate and key cannot be used");
  }
  door_->Begin([this](UniqueFd connection) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters taken;
    taken.fd = connection.Release();
    acceptor_->HandleNewConnection(&taken);
  });
  return absl::OkStatus();
}

absl::StatusOr<std::string> Server::Admit(const grpc::CallbackServerContext& context) const {
  const PeerPolicy policy = [this] {
    const std::lock_guard lock(policy_mutex_);
    return policy_;
  }();
  ASSIGN_OR_RETURN(std::string name,
                   AdmitPeer(*context.auth_context(), policy, ca_pem_,
                             "the list of those that may send guests here; its name must be added "
                             "to this destination's allow-list"));
  RETURN_IF_ERROR(door_->Prove(context.peer(), name));
  return name;
}

grpc::ServerBidiReactor<v1::Frame, v1::Frame>* Server::Migrate(
    grpc::CallbackServerContext* context) {
  absl::StatusOr<std::string> peer = Admit(*context);
  if (!peer.ok()) return new Refusal(peer.status());
  std::list<Migration> finished;
  ServerStream* reactor = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return new Refusal(absl::UnavailableError("this destination is stopping"));
    if (running_ >= max_migrations_) {
      return new Refusal(absl::ResourceExhaustedError(
          fmt::format("{} migrations are under way here, and no more are allowed at a time; try "
                      "again when one has ended",
                      running_)));
    }
    finished = TakeFinished();
    ++running_;
    Migration& migration = migrations_.emplace_back();
    migration.stream = ServerStream::Make(context, *std::move(peer));
    reactor = migration.stream.get();
    reactor->Accept();
    migration.thread = std::thread([this, &migration] { Run(migration); });
  }
  for (Migration& migration : finished) migration.thread.join();
  return reactor;
}

void Server::Run(Migration& migration) {
  service_.Serve(*migration.stream);
  migration.stream->Close();
  if (!migration.stream->WaitEnded(In(kLinger))) migration.stream->Cancel();
  const std::lock_guard lock(mutex_);
  migration.stream.reset();
  migration.finished = true;
  --running_;
  changed_.notify_all();
}

std::list<Server::Migration> Server::TakeFinished() {
  std::list<Migration> finished;
  for (auto it = migrations_.begin(); it != migrations_.end();) {
    const auto next = std::next(it);
    if (it->finished) finished.splice(finished.end(), migrations_, it);
    it = next;
  }
  return finished;
}

grpc::ServerUnaryReactor* Server::Settle(grpc::CallbackServerContext* context,
                                         const v1::SettleRequest* request, v1::SettleReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Status status = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string peer, Admit(*context));
    RETURN_IF_ERROR(CheckMigrationId(request->migration_id()));
    ASSIGN_OR_RETURN(const Verdict verdict, service_.Settle(request->migration_id(), peer));
    switch (verdict) {
      case Verdict::kUnknown:
        reply->set_verdict(v1::VERDICT_UNKNOWN);
        break;
      case Verdict::kUndecided:
        reply->set_verdict(v1::VERDICT_UNDECIDED);
        break;
      case Verdict::kOwned:
        reply->set_verdict(v1::VERDICT_OWNED);
        break;
      case Verdict::kReleased:
        reply->set_verdict(v1::VERDICT_RELEASED);
        break;
    }
    return absl::OkStatus();
  }();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

grpc::ServerUnaryReactor* Server::Confirm(grpc::CallbackServerContext* context,
                                          const v1::ConfirmRequest* request, v1::ConfirmReply*) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Status status = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string peer, Admit(*context));
    RETURN_IF_ERROR(CheckMigrationId(request->migration_id()));
    return service_.Confirm(request->migration_id(), peer);
  }();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

absl::Status Server::Stop(Deadline deadline) {
  if (server_ == nullptr) return absl::OkStatus();
  std::list<Migration> finished;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    for (Migration& migration : migrations_) {
      if (migration.stream != nullptr) migration.stream->Close();
    }
    const bool all = changed_.wait_until(lock, deadline, [this] { return running_ == 0; });
    finished = TakeFinished();
    if (!all) {
      const size_t left = running_;
      lock.unlock();
      for (Migration& migration : finished) migration.thread.join();
      return absl::DeadlineExceededError(fmt::format("{} migrations have not ended in time", left));
    }
  }
  for (Migration& migration : finished) migration.thread.join();
  door_->Close();
  // Now only calls without a migration are left: they get until the deadline, then are cancelled.
  server_->Shutdown(std::chrono::system_clock::now() +
                    std::max(deadline - Clock::now(), Clock::duration(seconds(0))));
  server_.reset();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlServer>> ControlServer::Start(
    const ControlServerOptions& options, ControlService& service) {
  auto server = std::make_unique<Server>(options, service);
  RETURN_IF_ERROR(server->Listen(options));
  return server;
}

}  // namespace ramferry
