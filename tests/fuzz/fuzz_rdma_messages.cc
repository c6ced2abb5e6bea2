// What an RDMA peer can send beside pages, on both hosts: what comes with the request to connect
// and with the answer to it, and messages (transport/rdma/wire.h), writes with immediate data among
// them. The devices are played (tests/unit/rdma_double.h).
//
// Nothing may be registered or cleared outside the guest's memory, which lies between pages that
// nobody may touch, nor more than the pin budget; whoever refuses something says why.
//
// Input: the first byte chooses who is spoken to, the rest is what is said. Numbers in messages are
// short for likely values, so that short inputs reach far.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "tests/unit/rdma_double.h"
#include "transport/rdma/landing.h"
#include "transport/rdma/rdma_channel.h"
#include "transport/rdma/wire.h"

namespace {

using namespace ramferry;
using namespace ramferry::rdma;

constexpr uint64_t kBytes = 4 << 20;
constexpr uint64_t kBudget = 3 << 20;
constexpr size_t kMostMessages = 200;

void Must(bool condition) {
  if (!condition) std::abort();
}
void MustSayWhy(const absl::Status& status) {
  Must(status.ok() || !status.message().empty());
}

// One region in a file and one that is no file, each between pages that nobody may touch.
class TwoRegions {
 public:
  TwoRegions() {
    const int fd = ::memfd_create("guest", MFD_CLOEXEC);
    Must(::ftruncate(fd, kBytes) == 0);
    regions = {Map(fd), Map(-1)};
  }
  std::vector<MappedRegion> regions;

 private:
  static MappedRegion Map(int fd) {
    auto* const whole =
        static_cast<std::byte*>(::mmap(nullptr, kBytes + 2 * kPageBytes, PROT_NONE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void* const inner =
        ::mmap(whole + kPageBytes, kBytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
    Must(inner != MAP_FAILED);
    return {.description = {.name = fd < 0 ? "anonymous" : "file", .size = ByteCount(kBytes)},
            .address = static_cast<std::byte*>(inner),
            .fd = fd};
  }
};

class Input {
 public:
  Input(const uint8_t* data, size_t size)
      : bytes_(reinterpret_cast<const std::byte*>(data), size) {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  [[nodiscard]] std::span<const std::byte> rest() const { return bytes_; }
  uint8_t Byte() {
    if (bytes_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(bytes_[0]);
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  // 0 to 127 pages, or eight bytes of any value.
  uint64_t Number() {
    const uint8_t byte = Byte();
    if (byte < 128) return byte * kPageBytes;
    uint64_t number = 0;
    for (int i = 0; i < 8; ++i) number = number << 8 | Byte();
    return number;
  }
  Message TakeMessage() {
    Message message{};
    message.type = static_cast<MessageType>(Byte());
    message.count = Byte();
    if (message.count == 255) message.count = static_cast<uint32_t>(Number());
    message.sequence = Byte();
    message.piece = Byte();
    if (message.piece == 255) message.piece = static_cast<uint32_t>(Number());
    message.rkey = Byte();
    message.address = Number();
    const size_t ranges = Byte() % (kRangesPerMessage + 1);
    for (size_t i = 0; i < ranges; ++i) {
      const uint32_t region = Byte();
      const uint64_t offset = Number();
      message.ranges[i] = {region == 255 ? UINT32_MAX : region, 0, offset, Number()};
    }
    return message;
  }
  // The next message, or what is none, comes to the end that `link` is of.
  void Say(FakeLink& link) {
    const uint8_t how = Byte();
    const Message message = TakeMessage();
    const auto bytes = std::as_bytes(std::span(&message, 1));
    if (how == 255) {
      link.Arrive(bytes, IBV_WC_RECV_RDMA_WITH_IMM, IBV_WC_WITH_IMM);
    } else if (how == 254) {
      link.Arrive(bytes, IBV_WC_RECV, IBV_WC_WITH_IMM);
    } else if (how == 253) {
      link.Arrive(bytes.first(Byte()));
    } else {
      link.Arrive(bytes);
    }
  }

 private:
  std::span<const std::byte> bytes_;
};

const TwoRegions& Guest() {
  static const auto& guest = *new TwoRegions;
  return guest;
}
const std::string& Token() {
  static const auto& token = *new std::string(32, 'k');
  return token;
}

// What the source says first, to a destination.
void Greet(const Input& input) {
  const auto greeting = ParseGreeting(input.rest());
  if (!greeting.ok()) return MustSayWhy(greeting.status());
  Must(input.rest().size() >= sizeof(Greeting));
  (void)Proves(*greeting, Token());
}

// What the destination answers, to a source: it may know the token, and lie all the same.
void BeWelcomed(Input& input) {
  static const Greeting& greeting = *new Greeting(*MakeGreeting(Token()));
  MustSayWhy(ParseWelcome(input.rest(), greeting, Token()).status());
  Welcome said = MakeWelcome(greeting, Token());
  constexpr size_t kFrom = offsetof(Welcome, pin_budget);
  std::memcpy(reinterpret_cast<std::byte*>(&said) + kFrom, input.rest().data(),
              std::min(input.rest().size(), offsetof(Welcome, proof) - kFrom));
  const auto welcome = ParseWelcome(std::as_bytes(std::span(&said, 1)), greeting, Token());
  Must(welcome.ok());
  PieceLimits limits{.budget = ByteCount(welcome->pin_budget), .channels = 2};
  limits.Heed(welcome->largest_registration, welcome->most_pieces);
  FakeMemory memory;
  const auto table = PieceTable::Create(Guest().regions, memory, limits);
  if (!table.ok()) return MustSayWhy(table.status());
  const std::atomic<bool> go_on{false};
  const auto claim = (*table)->Acquire(0, 0, kBytes, go_on);
  MustSayWhy(claim.status());
  Must(welcome->pin_budget == 0 || memory.pinned() <= welcome->pin_budget);
}

void TellTheDestination(Input& input) {
  FakeMemory memory;
  FakeMemory sources;
  Landing landing(Guest().regions, memory, ByteCount(kBudget));
  auto link = std::make_unique<FakeLink>(sources);
  FakeLink nobody(memory);
  link->ConnectTo(nobody);
  FakeLink& heard = *link;
  auto service = *ChannelService::Create(std::move(link), memory, landing);
  const uint64_t own = memory.pinned();
  const auto* const proof = reinterpret_cast<const std::byte*>(service->proof_place().address);
  bool goodbye = false;
  absl::Status served;
  for (size_t i = 0; i < kMostMessages && served.ok() && !goodbye && !input.empty(); ++i) {
    input.Say(heard);
    heard.CompleteLocally();
    served = service->ServeSome(goodbye);
    Must(memory.pinned() - own <= kBudget);
  }
  MustSayWhy(served);
  for (const auto& registered : memory.ranges()) {
    const FakeMemory::Range& range = registered.second;
    if (range.access != Access::kRemoteWrite || range.address == proof) continue;
    Must(std::any_of(Guest().regions.begin(), Guest().regions.end(), [&](const auto& region) {
      return range.address >= region.address && range.length <= kBytes &&
             range.address + range.length <= region.address + kBytes;
    }));
  }
}

void AnswerTheSource(Input& input) {
  FakeMemory memory;
  FakeMemory destinations;
  static std::vector<std::byte>& landing = *new std::vector<std::byte>(kBytes);
  const auto registered = destinations.Register(landing.data(), kBytes, Access::kRemoteWrite);
  const auto table =
      PieceTable::Create(Guest().regions, memory, {.budget = ByteCount(kBudget), .channels = 1});
  auto link = std::make_unique<FakeLink>(destinations);
  FakeLink nobody(memory);
  FakeLink& heard = *link;
  link->ConnectTo(nobody);
  link->on_wait = [&] {
    heard.CompleteLocally();
    if (input.empty()) {
      heard.Interrupt(absl::UnavailableError("it has said all"));
    } else {
      input.Say(heard);
    }
  };
  auto channel = *RdmaChannel::Create(nullptr, std::move(link), memory);
  channel->UseTable(**table);
  channel->SetWaiting(Waiting::kSleep);
  absl::Status status;
  for (size_t i = 0; i < kMostMessages && status.ok() && !input.empty(); ++i) {
    const RegionId region = i % 2;
    const uint64_t offset = i % 4 << 20;
    const std::byte* const bytes = Guest().regions[region].address + offset;
    const PageWrite write{region, offset, bytes, 4 * kPageBytes};
    const PageZero zero{region, offset + 8 * kPageBytes, 4 * kPageBytes};
    status = channel->Write({&write, 1});
    if (status.ok()) status = channel->WriteZeros({&zero, 1});
    if (status.ok()) status = channel->Flush(In(std::chrono::seconds(10)));
    Must(table.value()->pinned().value() <= kBudget);
  }
  MustSayWhy(status);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  Input input(data + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      Greet(input);
      break;
    case 1:
      BeWelcomed(input);
      break;
    case 2:
      TellTheDestination(input);
      break;
    default:
      AnswerTheSource(input);
  }
  return 0;
}
