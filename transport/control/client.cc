#include "transport/control/client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <utility>

#include "base/status.h"
#include "transport/control/codec.h"
#include "transport/control/connection_limits.h"
#include "transport/control/control.grpc.pb.h"
#include "transport/control/diagnosis.h"
#include "transport/control/grpc_log.h"
#include "transport/control/message_check.h"
#include "transport/control/peer.h"
#include "transport/control/reach.h"
#include "transport/control/stream.h"
#include "transport/control/text_check.h"

namespace ramferry {
namespace {

using std::chrono::seconds;

// For finding out in words why a connection failed.
constexpr auto kDiagnosisTime = seconds(3);

std::string CalledName(const ControlClientOptions& options) {
  return options.expected_name.empty() ? options.host : options.expected_name;
}

std::string Text(const grpc::Status& status) {
  return PresentableReason(status.error_message());
}

// gRPC's name of a numeric address. '%' of a zone must be escaped in it.
std::string Target(const std::string& address, uint16_t port) {
  if (address.find(':') == address.npos) return "ipv4:" + HostAndPort(address, port);
  std::string escaped = address;
  if (const size_t zone = escaped.find('%'); zone != escaped.npos) escaped.insert(zone + 1, "25");
  return "ipv6:" + HostAndPort(escaped, port);
}

// `address` is one of the host's that answers.
std::shared_ptr<grpc::Channel> MakeChannel(const ControlClientOptions& options,
                                           const std::string& address) {
  RedirectGrpcLog();
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMilliseconds);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMilliseconds);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no limit
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);                // a migration is not idempotent
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);     // one connection a channel
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // never through what the environment names
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetMaxReceiveMessageSize(kMaxFrameBytes);
  arguments.SetSslTargetNameOverride(CalledName(options));  // not the address
  const auto credentials =
      grpc::SslCredentials({.pem_root_certs = options.identity.ca_pem,
                            .pem_private_key = options.identity.key_pem,
                            .pem_cert_chain = options.identity.certificate_pem});
  return grpc::CreateCustomChannel(Target(address, options.port), credentials, arguments);
}

absl::Status CheckOptions(const ControlClientOptions& options) {
  // Nothing that a resolver or a URI could take for syntax: "host%25eth0" is an address with a
  // zone.
  if (options.host.empty() || options.host.size() > kMaxNameBytes ||
      options.host.find_first_of("/[]@?# ,\t\n") != std::string::npos) {
    return absl::InvalidArgumentError(fmt::format("'{}' is neither a host name nor an IP address",
                                                  PresentableReason(options.host)));
  }
  if (options.port == 0) return absl::InvalidArgumentError("the destination's port is not given");
  return absl::OkStatus();
}

struct Failure {
  absl::Status reason;
  bool groundless = false;  // gRPC calls the peer unavailable, which answers all the same
};

// What a failed call means. Asks the network again when gRPC cannot say.
Failure Explain(const grpc::Status& status, const ControlClientOptions& options) {
  const std::string peer = HostAndPort(options.host, options.port);
  const std::string text = fmt::format("{}: {}", peer, Text(status));
  switch (status.error_code()) {
    case grpc::StatusCode::PERMISSION_DENIED:
      return {absl::PermissionDeniedError(text)};
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return {absl::ResourceExhaustedError(text)};
    case grpc::StatusCode::INVALID_ARGUMENT:
      return {absl::InvalidArgumentError(text)};
    case grpc::StatusCode::UNIMPLEMENTED:
      return {absl::UnavailableError(
          fmt::format("{} speaks gRPC, but is no ramferry that this version understands ({})", peer,
                      Text(status)))};
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::UNAVAILABLE:
      break;
    default:
      return {absl::UnavailableError(text)};
  }
  absl::Status reason = DiagnoseConnection(options.host, options.port, CalledName(options),
                                           options.identity, In(kDiagnosisTime));
  if (!reason.ok()) return {std::move(reason)};
  return {.reason = absl::UnavailableError(text),
          .groundless = status.error_code() == grpc::StatusCode::UNAVAILABLE};
}

// What a peer says that may not be dealt with does not count, nor is anything said to it.
grpc::Status AllowedPeer(const grpc::ClientContext& context, const ControlClientOptions& options) {
  const absl::Status status =
      AdmitPeer(*context.auth_context(), options.policy, options.identity.ca_pem,
                "the list of those that guests may be sent to ([migrate] allow)")
          .status();
  return status.ok()
             ? grpc::Status()
             : grpc::Status(grpc::StatusCode::PERMISSION_DENIED, std::string(status.message()));
}

// Calls the first of the peer's addresses that answers; a second time where the first failure was
// groundless: gRPC 1.51 reads the errno of connect(2) after other calls (tcp_client_posix.cc), and
// takes what they left for its result: "No such file or directory" when absl::Mutex, which has to
// wait for the first time, has looked for the processor's frequency in sysfs in between. So nothing
// of `attempt` may do harm when it is done twice.
absl::Status CallPeer(const ControlClientOptions& options, Deadline deadline,
                      const std::function<grpc::Status(const std::string& address)>& attempt) {
  for (bool again = false;; again = true) {
    std::string address;
    {
      // Before gRPC, which reports all failures alike, and with the system's resolver.
      ASSIGN_OR_RETURN(Reached reached, ReachTcp(options.host, options.port, deadline));
      address = std::move(reached.address);
    }
    const grpc::Status status = attempt(address);
    if (status.ok()) return absl::OkStatus();
    Failure failure = Explain(status, options);
    if (again || !failure.groundless) return failure.reason;
  }
}

// The call. Destroying it closes it in order and waits for gRPC's last word; never do that on one
// of gRPC's own threads, for the last channel of a process joins them.
class ClientStream : public grpc::ClientBidiReactor<v1::Frame, v1::Frame>, public ControlStream {
 public:
  ClientStream(const ControlClientOptions& options, const std::string& address)
      : ControlStream(Side::kClient),
        host_(options.host),
        stub_(v1::Control::NewStub(MakeChannel(options, address))) {
    SetPeer(options.host, address);
    stub_->async()->Migrate(&context_, this);
    AddHold();
    StartCall();
  }
  ~ClientStream() override {
    Close();
    if (WaitEnded(In(kLinger))) return;
    Cancel();
    WaitEnded(Deadline::max());  // nothing of it depends on the peer any more
  }

  // OK when the destination took the migration, and may have it; its status otherwise.
  grpc::Status WaitAccepted(Deadline deadline, const ControlClientOptions& options) {
    std::unique_lock lock(mutex_);
    answered_.wait_until(lock, deadline, [this] { return accepted_ || done_; });
    if (accepted_) return AllowedPeer(context_, options);
    if (done_ && !status_.ok()) return status_;
    if (done_) return {grpc::StatusCode::UNIMPLEMENTED, "it does not take migrations"};
    return {grpc::StatusCode::DEADLINE_EXCEEDED, "it has not answered in time"};
  }

 private:
  void OnReadInitialMetadataDone(bool ok) override {
    if (ok && context_.GetServerInitialMetadata().count(kAcceptedKey) != 0) {
      const std::vector<std::string> names = NamesOfPeer(*context_.auth_context());
      SetPeer(names.empty() ? host_ : names.front(), AddressOfPeer(context_.peer()));
      const std::lock_guard lock(mutex_);
      accepted_ = true;
      answered_.notify_all();
    }
    Begin();
  }
  void OnReadDone(bool ok) override { ReadDone(ok); }
  void OnWriteDone(bool ok) override { WriteDone(ok); }
  void OnWritesDoneDone(bool) override { EndDone(); }
  void OnDone(const grpc::Status& status) override {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
      status_ = status;
      answered_.notify_all();
    }
    // The last thing: this object may be gone when it returns.
    Ended(status.ok() ? absl::OkStatus()
                      : absl::UnavailableError(fmt::format("the connection to {} is lost: {}",
                                                           peer_name(), Text(status))));
  }

  void StartRead(v1::Frame* frame) override { ClientBidiReactor::StartRead(frame); }
  void StartWrite(const v1::Frame* frame) override { ClientBidiReactor::StartWrite(frame); }
  void StartEnd() override { StartWritesDone(); }
  void Release() override { RemoveHold(); }
  void StartCancel() override { context_.TryCancel(); }

  const std::string host_;
  const std::unique_ptr<v1::Control::Stub> stub_;
  grpc::ClientContext context_;

  std::mutex mutex_;
  std::condition_variable answered_;
  bool accepted_ = false;
  bool done_ = false;
  grpc::Status status_;
};

// One unary call, from connection to answer.
template <class Request, class Reply>
absl::StatusOr<Reply> Call(const ControlClientOptions& options, const std::string& migration_id,
                           grpc::Status (v1::Control::Stub::*method)(grpc::ClientContext*,
                                                                     const Request&, Reply*)) {
  RETURN_IF_ERROR(CheckOptions(options));
  RETURN_IF_ERROR(CheckMigrationId(migration_id));
  const Deadline deadline = In(options.connect_timeout);
  Request request;
  request.set_migration_id(migration_id);
  Reply reply;
  RETURN_IF_ERROR(CallPeer(options, deadline, [&](const std::string& address) {
    const auto stub = v1::Control::NewStub(MakeChannel(options, address));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + (deadline - Clock::now()));
    const grpc::Status status = (stub.get()->*method)(&context, request, &reply);
    return status.ok() ? AllowedPeer(context, options) : status;
  }));
  return reply;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlChannel>> ConnectControl(
    const ControlClientOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<ClientStream> stream;
  const Deadline reached = In(options.connect_timeout);
  RETURN_IF_ERROR(CallPeer(options, reached, [&](const std::string& address) {
    stream = std::make_unique<ClientStream>(options, address);
    grpc::Status accepted = stream->WaitAccepted(In(options.accept_timeout), options);
    if (!accepted.ok()) {
      stream->Cancel();
      stream.reset();
    }
    return accepted;
  }));
  return stream;
}

absl::StatusOr<Verdict> AskVerdict(const ControlClientOptions& options,
                                   const std::string& migration_id) {
  ASSIGN_OR_RETURN(const v1::SettleReply reply,
                   (Call<v1::SettleRequest, v1::SettleReply>(options, migration_id,
                                                             &v1::Control::Stub::Settle)));
  switch (reply.verdict()) {
    case v1::VERDICT_UNKNOWN:
      return Verdict::kUnknown;
    case v1::VERDICT_UNDECIDED:
      return Verdict::kUndecided;
    case v1::VERDICT_OWNED:
      return Verdict::kOwned;
    case v1::VERDICT_RELEASED:
      return Verdict::kReleased;
    default:
      // Never to be taken for a permission to run the guest.
      return absl::UnavailableError(
          fmt::format("{} gave a verdict that this version does not know; is its ramferry newer?",
                      HostAndPort(options.host, options.port)));
  }
}

absl::Status ConfirmVerdict(const ControlClientOptions& options, const std::string& migration_id) {
  return Call<v1::ConfirmRequest, v1::ConfirmReply>(options, migration_id,
                                                    &v1::Control::Stub::Confirm)
      .status();
}

}  // namespace ramferry
