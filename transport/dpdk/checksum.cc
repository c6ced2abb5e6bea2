#include "transport/dpdk/checksum.h"

#include <cstring>

// Highway compiles what is between these for every instruction set it knows (hwy/foreach_target.h).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "transport/dpdk/checksum.cc"
#include "hwy/foreach_target.h"
// Must come after foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ramferry::dpdk::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// 32-bit words are added up in 64-bit lanes: no carry is lost below 16 GiB.
uint64_t SumOfWordsImpl(const uint8_t* bytes, size_t length) {
  const hn::ScalableTag<uint64_t> d;
  const size_t lanes = hn::Lanes(d);
  const size_t step = lanes * sizeof(uint64_t);
  const auto low = hn::Set(d, 0xffffffffU);
  auto even = hn::Zero(d);
  auto odd = hn::Zero(d);
  while (length >= step) {
    const auto words = hn::LoadU(d, reinterpret_cast<const uint64_t*>(bytes));
    even = hn::Add(even, hn::And(words, low));
    odd = hn::Add(odd, hn::ShiftRight<32>(words));
    bytes += step;
    length -= step;
  }
  uint64_t sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
  for (; length >= sizeof(uint32_t); bytes += sizeof(uint32_t), length -= sizeof(uint32_t)) {
    uint32_t word;
    std::memcpy(&word, bytes, sizeof word);
    sum += word;
  }
  uint32_t rest = 0;
  std::memcpy(&rest, bytes, length);
  return sum + rest;
}

}  // namespace ramferry::dpdk::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <atomic>

namespace ramferry::dpdk {

HWY_EXPORT(SumOfWordsImpl);

namespace {

std::atomic<uint64_t> interposed_calls{0};

void CountCall() {  // one thread uses lwIP
  interposed_calls.store(interposed_calls.load(std::memory_order_relaxed) + 1,
                         std::memory_order_relaxed);
}

}  // namespace

uint16_t InternetSum(const void* bytes, size_t length) {
  uint64_t sum = HWY_DYNAMIC_DISPATCH(SumOfWordsImpl)(static_cast<const uint8_t*>(bytes), length);
  sum = (sum >> 32) + (sum & 0xffffffffU);
  for (int i = 0; i < 4; ++i) sum = (sum >> 16) + (sum & 0xffffU);
  return static_cast<uint16_t>(sum);
}

uint64_t InterposedCalls() {
  return interposed_calls.load(std::memory_order_relaxed);
}

}  // namespace ramferry::dpdk

// As lwip/inet_chksum.h declares them.
extern "C" {

uint16_t lwip_standard_chksum(const void* data, int length) {
  ramferry::dpdk::CountCall();
  return ramferry::dpdk::InternetSum(data, static_cast<size_t>(length));
}

uint16_t lwip_chksum_copy(void* to, const void* from, uint16_t length) {
  ramferry::dpdk::CountCall();
  std::memcpy(to, from, length);
  return ramferry::dpdk::InternetSum(to, length);
}

// lwIP guards its counters with a lock; one thread only calls it here, so none is needed.
int sys_arch_protect() {
  return 0;
}
void sys_arch_unprotect(int) {}
}
#endif
