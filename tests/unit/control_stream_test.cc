// ControlStream without gRPC: two ends on a scripted wire that checks gRPC's rules. This is where
// ThreadSanitizer sees the locking; in gRPC, which is not instrumented, it sees nothing.
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "transport/control/stream.h"

namespace ramferry {
namespace {

using namespace std::chrono_literals;
constexpr auto kLong = 60s;

// One call: what both ends have asked for, and the frames between them.
struct Network {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<v1::Frame> frames[2];  // to the client, to the server
  bool half_closed[2] = {};         // nothing more will be sent to that end
  bool broken = false;
};

class End : public ControlStream {
 public:
  End(std::shared_ptr<Network> net, Side side)
      : ControlStream(side), net_(std::move(net)), me_(side == Side::kServer ? 1 : 0) {
    SetPeer(side == Side::kServer ? "source" : "destination", "192.0.2.1");
    thread_ = std::thread([this] { Run(); });
    Begin();
  }
  ~End() override {
    Close();
    if (!WaitEnded(In(100ms))) Cancel();
    thread_.join();
  }

 private:
  // gRPC's side, as strict as gRPC.
  void Ask(bool& wanted) {
    const std::lock_guard lock(net_->mutex);
    EXPECT_FALSE(wanted) << "one at a time";
    EXPECT_FALSE(over_) << "nothing after the end";
    wanted = true;
    net_->changed.notify_all();
  }
  void StartRead(v1::Frame* frame) override {
    read_into_ = frame;
    Ask(read_wanted_);
  }
  void StartWrite(const v1::Frame* frame) override {
    EXPECT_FALSE(end_wanted_);
    write_from_ = frame;
    Ask(write_wanted_);
  }
  void StartEnd() override {
    EXPECT_FALSE(write_wanted_);
    Ask(end_wanted_);
    const std::lock_guard lock(net_->mutex);
    if (me_ == 1) over_ = true;
    net_->changed.notify_all();
  }
  void Release() override {
    const std::lock_guard lock(net_->mutex);
    EXPECT_FALSE(over_);
    EXPECT_FALSE(read_wanted_ || write_wanted_);
    over_ = true;
    net_->changed.notify_all();
  }
  void StartCancel() override {
    const std::lock_guard lock(net_->mutex);
    net_->broken = true;
    net_->changed.notify_all();
  }

  void Run() {
    Network& net = *net_;
    auto& in = net.frames[me_];
    std::unique_lock lock(net.mutex);
    while (true) {
      const bool in_over = net.half_closed[me_] || net.broken || (me_ == 1 && end_wanted_);
      if (write_wanted_) {
        const bool ok = !net.broken && !net.half_closed[me_];
        if (ok) net.frames[1 - me_].push_back(*write_from_);
        write_wanted_ = false;
        net.changed.notify_all();
        Unlocked(lock, [&] { WriteDone(ok); });
      } else if (read_wanted_ && !in.empty()) {
        *read_into_ = in.front();
        in.pop_front();
        read_wanted_ = false;
        Unlocked(lock, [&] { ReadDone(true); });
      } else if (read_wanted_ && in_over) {
        read_wanted_ = false;
        Unlocked(lock, [&] { ReadDone(false); });
      } else if (end_wanted_ && !end_told_) {
        end_told_ = true;
        net.half_closed[1 - me_] = true;
        net.changed.notify_all();
        if (me_ == 0) Unlocked(lock, [&] { EndDone(); });
      } else if (over_) {
        lock.unlock();
        Ended(absl::OkStatus());
        return;
      } else {
        net.changed.wait(lock);
      }
    }
  }
  template <class Callback>
  void Unlocked(std::unique_lock<std::mutex>& lock, const Callback& callback) {
    lock.unlock();
    callback();
    lock.lock();
  }

  const std::shared_ptr<Network> net_;
  const size_t me_;
  std::thread thread_;
  v1::Frame* read_into_ = nullptr;
  const v1::Frame* write_from_ = nullptr;
  bool read_wanted_ = false;  // these under the network's mutex
  bool write_wanted_ = false;
  bool end_wanted_ = false;
  bool end_told_ = false;
  bool over_ = false;
};

struct Pair {
  std::shared_ptr<Network> net = std::make_shared<Network>();
  std::unique_ptr<End> client = std::make_unique<End>(net, ControlStream::Side::kClient);
  std::unique_ptr<End> server = std::make_unique<End>(net, ControlStream::Side::kServer);
};

uint32_t RoundOf(const absl::StatusOr<ControlMessage>& message) {
  EXPECT_TRUE(message.ok()) << message.status();
  return message.ok() ? std::get<RoundNote>(*message).round : 0;
}

TEST(ControlStream, traffic_both_ways_from_many_threads_arrives_once) {
  Pair pair;
  const auto run = [](End& end) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&] {
        for (uint32_t i = 1; i <= 200; ++i) EXPECT_TRUE(end.Send(RoundNote{.round = i}).ok());
      });
    }
    uint64_t sum = 0;
    for (int i = 0; i < 400; ++i) sum += RoundOf(end.Receive(In(kLong)));
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(sum, 2u * 20'100u);
  };
  std::thread other([&] { run(*pair.server); });
  run(*pair.client);
  other.join();
}

TEST(ControlStream, a_close_travels_behind_what_was_sent) {
  for (const bool server_closes : {false, true}) {
    for (uint32_t count : {0u, 1u, 10u}) {
      Pair pair;
      End& closing = server_closes ? *pair.server : *pair.client;
      End& other = server_closes ? *pair.client : *pair.server;
      for (uint32_t i = 1; i <= count; ++i) ASSERT_TRUE(closing.Send(RoundNote{.round = i}).ok());
      closing.Close();
      EXPECT_TRUE(closing.WaitEnded(In(kLong)));
      EXPECT_EQ(closing.Send(Paused{}).code(), absl::StatusCode::kUnavailable);
      for (uint32_t i = 1; i <= count; ++i) EXPECT_EQ(RoundOf(other.Receive(In(kLong))), i);
      EXPECT_EQ(other.Receive(In(kLong)).status().code(), absl::StatusCode::kUnavailable);
    }
  }
}

TEST(ControlStream, ends_may_come_from_everywhere_at_once) {
  for (int i = 0; i < 100; ++i) {
    Pair pair;
    std::vector<std::thread> threads;
    for (End* end : {pair.client.get(), pair.server.get()}) {
      threads.emplace_back([=] {
        while (end->Send(Paused{}).ok()) {
        }
      });
      threads.emplace_back([=] {
        while (end->Receive(In(kLong)).ok()) {
        }
      });
      threads.emplace_back([=] { end->Close(); });
      if (i % 3 == 0) threads.emplace_back([=] { end->Cancel(); });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

TEST(ControlStream, nonsense_is_an_error_and_what_came_before_it_is_not) {
  Pair pair;
  ASSERT_TRUE(pair.client->Send(RoundNote{.round = 7}).ok());
  EXPECT_EQ(RoundOf(pair.server->Receive(In(kLong))), 7u);
  ASSERT_TRUE(pair.client->Send(RoundNote{.round = 8}).ok());
  {
    const std::lock_guard lock(pair.net->mutex);
    pair.net->frames[1].emplace_back();  // of no kind
    pair.net->changed.notify_all();
  }
  // The two may have changed places on the wire; the good one is received if it came first.
  absl::StatusOr<ControlMessage> message = pair.server->Receive(In(kLong));
  if (message.ok()) message = pair.server->Receive(In(kLong));
  EXPECT_EQ(message.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pair.server->Receive(In(kLong)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(pair.server->Send(Abort{"nonsense"}).ok()) << "the peer can still be told";
  EXPECT_TRUE(pair.client->Receive(In(kLong)).ok());
}

}  // namespace
}  // namespace ramferry
