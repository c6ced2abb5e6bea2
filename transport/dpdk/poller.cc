#include "transport/dpdk/poller.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include <future>

#include "base/cpu_set.h"
#include "base/status.h"
#include "transport/dpdk/eal.h"
#include "transport/dpdk/port.h"
#include "transport/dpdk/stack.h"
#include "transport/tcp/event.h"

namespace ramferry::dpdk {
namespace {

using namespace std::chrono_literals;

// Empty looks before it sleeps, and then longer and longer: about 50 us, then 5 ms, of looking.
constexpr uint32_t kLooks = 100;
constexpr uint32_t kShortSleeps = 1000;
constexpr auto kShortSleep = 20us;
constexpr auto kLongSleep = 200us;
constexpr auto kLonelySleep = 2ms;
// For connections that were left to send their last bytes when the poller goes.
constexpr auto kParting = 1s;

}  // namespace

Listening::Listening() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

std::vector<Listening::Arrival> Listening::Take() {
  tcp::ResetEvent(event_);
  const std::lock_guard lock(mutex_);
  return std::exchange(arrivals_, {});
}

absl::StatusOr<std::shared_ptr<Poller>> Poller::Get(const DpdkOptions& options) {
  static std::mutex& mutex = *new std::mutex;
  static std::weak_ptr<Poller>& current = *new std::weak_ptr<Poller>;
  const std::lock_guard lock(mutex);
  if (auto poller = current.lock()) return poller;
  RETURN_IF_ERROR(CheckDevice(options));
  std::shared_ptr<Poller> poller(new Poller(options));
  RETURN_IF_ERROR(poller->Begin());
  current = poller;
  return poller;
}

Poller::Poller(const DpdkOptions& options)
    : options_(options), event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Poller::~Poller() {
  stopping_.store(true);
  Wake();
  if (thread_.joinable()) thread_.join();
}

absl::Status Poller::Begin() {
  // Shared: the one who waits may go while the one who answers is still in set_value.
  const auto began = std::make_shared<std::promise<absl::Status>>();
  auto result = began->get_future();
  thread_ = std::thread(
      [this, began] { Run([began](const absl::Status& status) { began->set_value(status); }); });
  return result.get();
}

void Poller::Run(const std::function<void(const absl::Status&)>& began) {
  NameThisThread("rf-dpdk", 0);
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // ns: short sleeps shall be short
  if (const absl::Status started = StartEal(options_); !started.ok()) return began(started);
  auto port = OpenPort(options_);
  if (!port.ok()) return began(port.status());
  std::unique_ptr<Wire> wire = *std::move(port);
  if (options_.wrap != nullptr) wire = options_.wrap(std::move(wire));
  wire_ = wire.get();
  {
    auto stack = Stack::Create(*this, *wire, options_);
    began(stack.status());
    if (stack.ok()) Poll(**stack);
  }
  wire.reset();
  StopEal();
}

void Poller::Poll(Stack& stack) {
  uint32_t empty_looks = 0;
  Deadline last_moment = Deadline::max();
  while (true) {
    const bool asked = work_.exchange(false);
    if (asked) {
      std::deque<std::function<void(Stack&)>> actions;
      {
        const std::lock_guard lock(mutex_);
        actions.swap(actions_);
      }
      for (const auto& action : actions) action(stack);
    }
    const bool busy = stack.Turn() || asked;
    if (stopping_.load(std::memory_order_relaxed)) {
      if (last_moment == Deadline::max()) last_moment = In(kParting);
      if (stack.quiet() || Clock::now() >= last_moment) break;
    }
    empty_looks = busy ? 0 : empty_looks + 1;
    if (empty_looks <= kLooks) continue;
    SleepFor(stack.lonely()                         ? kLonelySleep
             : empty_looks <= kLooks + kShortSleeps ? std::chrono::microseconds(kShortSleep)
                                                    : kLongSleep);
  }
  stack.CutAll();
}

void Poller::SleepFor(std::chrono::microseconds time) {
  asleep_.store(true);
  if (!work_.load()) {
    pollfd waiting{.fd = event_.get(), .events = POLLIN};
    const timespec most{
        .tv_sec = 0, .tv_nsec = std::chrono::duration_cast<std::chrono::nanoseconds>(time).count()};
    if (::ppoll(&waiting, 1, &most, nullptr) > 0) {
      tcp::ResetEvent(event_);
    }
  }
  asleep_.store(false);
}

void Poller::Wake() {
  work_.store(true);
  if (!asleep_.load()) return;
  tcp::SignalEvent(event_);
}

void Poller::Do(const std::function<void(Stack&)>& action) {
  const auto done = std::make_shared<std::promise<void>>();
  {
    const std::lock_guard lock(mutex_);
    actions_.emplace_back([&action, done](Stack& stack) {
      action(stack);
      done->set_value();
    });
  }
  Wake();
  done->get_future().wait();
}

absl::StatusOr<std::shared_ptr<Connection>> Poller::Connect(const std::string& address,
                                                            uint16_t port,
                                                            std::chrono::milliseconds silence,
                                                            int interrupt_fd, Deadline deadline) {
  absl::StatusOr<std::shared_ptr<Connection>> connection = absl::UnknownError("not done");
  Do([&](Stack& stack) { connection = stack.Connect(address, port, silence); });
  RETURN_IF_ERROR(connection.status());
  absl::Status status = (*connection)->Wait(Connection::kRoom, interrupt_fd, deadline);
  if (status.ok()) status = (*connection)->status();
  if (status.ok()) return connection;
  (*connection)->Abort();
  (*connection)->Leave();
  if (!absl::IsDeadlineExceeded(status)) {
    return Annotate(status, fmt::format("cannot connect to {}:{} by DPDK", address, port));
  }
  bool neighbour = false;
  Do([&](Stack& stack) { neighbour = stack.Knows(address); });
  return absl::DeadlineExceededError(fmt::format(
      "{}:{} does not answer to DPDK port {}: {}", address, port, Describe(),
      neighbour ? "is a firewall in between?"
                : "nobody there answers ARP: see to dpdk.address, dpdk.gateway, dpdk.vlan and the "
                  "link"));
}

absl::StatusOr<std::pair<std::shared_ptr<Listening>, uint16_t>> Poller::Listen(
    uint16_t port, std::chrono::milliseconds silence) {
  absl::StatusOr<std::pair<std::shared_ptr<Listening>, uint16_t>> result =
      absl::UnknownError("not done");
  Do([&](Stack& stack) { result = stack.Listen(port, silence); });
  return result;
}

size_t Poller::HalfOpen() {
  size_t count = 0;
  Do([&count](Stack& stack) { count = stack.HalfOpen(); });
  return count;
}

void Poller::StopListening(uint16_t port) {
  Do([port](Stack& stack) { stack.StopListening(port); });
}

std::string Poller::Describe() const {
  return fmt::format("{}, {}{}, MTU {}", wire_->name(), options_.address,
                     options_.vlan > 0 ? fmt::format(", VLAN {}", options_.vlan) : "",
                     options_.mtu);
}

std::vector<std::pair<std::string, uint64_t>> Poller::Counters() const {
  const WireCounters& counters = wire_->counters();
  return {{"frames_received", counters.received.load()},
          {"bytes_received", counters.received_bytes.load()},
          {"frames_sent", counters.sent.load()},
          {"bytes_sent", counters.sent_bytes.load()},
          {"frames_not_sent", counters.not_sent.load()},
          {"no_buffer", counters.no_buffer.load()},
          {"frames_missed", wire_->missed()}};
}

}  // namespace ramferry::dpdk
