// What the data path of the RDMA channel must not do: allocate, or take a lock. This program counts
// both for the thread that asks, by standing in for operator new and pthread_mutex_lock.
#include <dlfcn.h>
#include <pthread.h>

#include <array>
#include <cstdlib>
#include <new>

#include "gtest/gtest.h"
#include "tests/unit/rdma_pair.h"

namespace {

thread_local bool counting = false;
thread_local int allocations = 0;
thread_local int locks = 0;

}  // namespace

void* operator new(size_t size) {
  if (counting) ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t /*size*/) noexcept {
  std::free(memory);
}

extern "C" int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  using Lock = int (*)(pthread_mutex_t*);
  static const Lock real = reinterpret_cast<Lock>(::dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  if (counting) ++locks;
  return real(mutex);
}

namespace ramferry::rdma {
namespace {

// A device and a destination that do nothing but answer, without allocating.
class QuietLink : public Link {
 public:
  [[nodiscard]] const LinkLimits& limits() const override { return limits_; }
  absl::Status Post(ibv_send_wr* chain) override {
    for (const ibv_send_wr* request = chain; request != nullptr; request = request->next) {
      ++posted;
      if (request->opcode == IBV_WR_SEND) {
        Answer(*reinterpret_cast<const Message*>(request->sg_list->addr));
      }
      if ((request->send_flags & IBV_SEND_SIGNALED) != 0) ++done_;
    }
    return absl::OkStatus();
  }
  absl::Status PostReceive(ibv_recv_wr* request) override {
    receives_[given_++ % receives_.size()] = {request->wr_id, request->sg_list->addr};
    return absl::OkStatus();
  }
  absl::StatusOr<size_t> Poll(std::span<ibv_wc> completions) override {
    size_t found = 0;
    for (; done_ > 0 && found < completions.size(); --done_) {
      completions[found++] = {.status = IBV_WC_SUCCESS, .opcode = IBV_WC_RDMA_WRITE};
    }
    if (answered_ && found < completions.size()) {
      answered_ = false;
      completions[found++] = {.wr_id = answer_in_,
                              .status = IBV_WC_SUCCESS,
                              .opcode = IBV_WC_RECV,
                              .byte_len = sizeof(Message)};
    }
    return found;
  }
  void Wait(Deadline /*deadline*/) override {}
  void Interrupt(absl::Status /*reason*/) override {}

  size_t posted = 0;

 private:
  struct Receive {
    uint64_t slot;
    uint64_t address;
  };
  void Answer(const Message& question) {
    if (question.type != MessageType::kRegister && question.type != MessageType::kFlush) return;
    const Receive& receive = receives_[taken_++ % receives_.size()];
    auto* const answer = reinterpret_cast<Message*>(receive.address);
    *answer = question;
    answer->type =
        question.type == MessageType::kFlush ? MessageType::kFlushed : MessageType::kRegistered;
    answer_in_ = receive.slot;
    answered_ = true;
  }

  const LinkLimits limits_{
      .send_depth = 64, .receive_depth = 64, .largest_message = 1 << 30, .path_mtu = 4096};
  std::array<Receive, 64> receives_{};
  size_t given_ = 0;
  size_t taken_ = 0;
  size_t done_ = 0;
  bool answered_ = false;
  uint64_t answer_in_ = 0;
};

TEST(RdmaDataPath, writes_and_zeros_allocate_nothing_and_take_no_lock) {
  const Guest guest(kGuestBytes);
  FakeMemory memory;
  PieceLimits limits{.budget = {}, .largest_piece = UINT64_MAX, .most_pieces = 64, .channels = 1};
  auto table = *PieceTable::Create({&guest.region, 1}, memory, limits);
  auto link = std::make_unique<QuietLink>();
  const QuietLink& quiet = *link;
  auto channel = *RdmaChannel::Create(nullptr, std::move(link), memory);
  channel->UseTable(*table);

  std::vector<PageWrite> writes;
  std::vector<PageZero> zeros;
  for (uint64_t page = 0; page < 1000; page += 4) {
    writes.push_back(guest.Write(page));
    zeros.push_back({0, (page + 2) * kPageBytes, kPageBytes});
  }
  writes.push_back(guest.Write(0, 1000));
  ASSERT_TRUE(channel->Write(writes).ok());  // opens the piece
  ASSERT_TRUE(channel->Flush(Deadline::max()).ok());

  const size_t posted = quiet.posted;
  counting = true;
  const bool wrote = channel->Write(writes).ok();
  const bool cleared = channel->WriteZeros(zeros).ok();
  const bool flushed = channel->Flush(Deadline::max()).ok();
  counting = false;
  EXPECT_TRUE(wrote && cleared && flushed);
  EXPECT_GT(quiet.posted, posted + writes.size());
  EXPECT_EQ(allocations, 0);
  EXPECT_EQ(locks, 0);
  // That this program would see them:
  counting = true;
  {
    std::mutex mutex;
    const std::lock_guard lock(mutex);
    ::operator delete(::operator new(1));  // which no compiler leaves out
  }
  counting = false;
  EXPECT_EQ(allocations, 1);
  EXPECT_EQ(locks, 1);
}

}  // namespace
}  // namespace ramferry::rdma
