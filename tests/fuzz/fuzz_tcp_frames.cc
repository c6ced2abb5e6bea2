// A source's bytes after the handshake, cut as the network may cut them. Nothing that reaches guest
// memory may be outside a region or not whole pages, and how the stream is cut must not matter.
//
// Input: with an odd first byte, what page_handshake.h says of the rest. Else the second byte seeds
// the cuts, and the rest is the stream. A byte of payload is not needed in the input: where a
// WRITE's payload is due, pages are made up, so that short inputs reach far.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "tests/fuzz/page_handshake.h"
#include "transport/tcp/frame_parser.h"

namespace {

using namespace ramferry;
using namespace ramferry::tcp;

constexpr uint64_t kSizes[] = {1 << 20, 4096, uint64_t{1} << 40};

class Judge final : public FrameSink {
 public:
  absl::Status OnWrite(RegionId region, uint64_t offset,
                       std::span<const std::byte> bytes) override {
    Check(region, offset, bytes.size());
    written += bytes.size();
    return absl::OkStatus();
  }
  absl::Status OnZero(RegionId region, uint64_t offset, uint64_t length) override {
    Check(region, offset, length);
    ++others;
    return absl::OkStatus();
  }
  absl::Status OnFlush(uint64_t) override {
    ++others;
    return absl::OkStatus();
  }

  uint64_t written = 0;
  uint64_t others = 0;

 private:
  static void Check(RegionId region, uint64_t offset, uint64_t length) {
    if (region >= std::size(kSizes) || (offset | length) % kPageBytes != 0 || length == 0 ||
        offset > kSizes[region] || length > kSizes[region] - offset) {
      std::abort();
    }
  }
};

std::vector<MappedRegion> Regions() {
  std::vector<MappedRegion> regions;
  for (const uint64_t size : kSizes) regions.push_back({.description = {.size = ByteCount(size)}});
  return regions;
}

// Headers from the input, with made-up payload behind every WRITE that is not too long to be taken.
std::vector<std::byte> Stream(std::span<const std::byte> input) {
  std::vector<std::byte> stream;
  while (!input.empty() && stream.size() < 4 << 20) {
    const auto header = input.first(std::min(input.size(), kHeaderBytes));
    stream.insert(stream.end(), header.begin(), header.end());
    input = input.subspan(header.size());
    if (header.size() < kHeaderBytes) break;
    const FrameHeader decoded = Decode(header.data());
    if (decoded.type == FrameType::kWrite && decoded.length <= kLargestWrite) {
      stream.resize(stream.size() + decoded.length, std::byte{0x5a});
    }
  }
  return stream;
}

struct Verdict {
  bool ok = false;
  uint64_t written = 0;
  uint64_t others = 0;
};

Verdict Run(std::span<const std::byte> stream, uint32_t cut) {
  const std::vector<MappedRegion> regions = Regions();
  Judge judge;
  FrameParser parser(regions, judge);
  std::vector<std::byte> held;
  bool ok = true;
  while (ok && !stream.empty()) {
    cut = cut * 1664525 + 1013904223;
    const size_t most = (cut >> 30) == 0 ? 64 : 300'000;
    const size_t take = std::min<size_t>(stream.size(), 1 + (cut >> 8) % most);
    held.insert(held.end(), stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(take));
    stream = stream.subspan(take);
    const absl::StatusOr<size_t> used = parser.Consume(held);
    ok = used.ok();
    if (!ok) {
      if (used.status().message().empty()) std::abort();
      break;
    }
    if (*used > held.size() || held.size() - *used >= kPageBytes) std::abort();
    held.erase(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(*used));
  }
  return {ok, judge.written, judge.others};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  if (data[0] % 2 != 0) {
    PlayPageHandshake(data + 1, size - 1);
    return 0;
  }
  const std::span<const std::byte> input(reinterpret_cast<const std::byte*>(data), size);
  const std::vector<std::byte> stream = Stream(input.subspan(2));
  const Verdict one = Run(stream, data[1]);
  const Verdict other = Run(stream, data[1] + 1000U);
  if (one.ok != other.ok || one.written != other.written || one.others != other.others) {
    std::abort();
  }
  return 0;
}
