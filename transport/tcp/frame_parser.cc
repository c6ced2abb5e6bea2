#include "transport/tcp/frame_parser.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/status.h"
#include "base/units.h"

namespace ramferry::tcp {
namespace {

// Fields that a frame does not use must be zero, so that a later version can give them a meaning.
bool UnusedAreZero(const FrameHeader& header) {
  switch (header.type) {
    case FrameType::kWrite:
    case FrameType::kZero:
      return header.code == 0;
    case FrameType::kFlush:
      return header.region == 0 && header.code == 0 && header.length == 0;
    case FrameType::kClose:
      return header.region == 0 && header.code == 0 && header.offset == 0 && header.length == 0;
    default:
      return true;
  }
}

}  // namespace

FrameParser::FrameParser(std::span<const MappedRegion> regions, FrameSink& sink) : sink_(sink) {
  sizes_.reserve(regions.size());
  for (const MappedRegion& region : regions) sizes_.push_back(region.description.size.value());
}

absl::StatusOr<size_t> FrameParser::Consume(std::span<const std::byte> bytes) {
  size_t used = 0;
  while (true) {
    const std::span<const std::byte> rest = bytes.subspan(used);
    if (left_ == 0) {
      if (closed_ && !rest.empty()) {
        return absl::InvalidArgumentError("the source sent more after it had closed the channel");
      }
      if (rest.size() < kHeaderBytes) return used;
      RETURN_IF_ERROR(Begin(Decode(rest.data())));
      used += kHeaderBytes;
    } else {
      const uint64_t take = std::min<uint64_t>(left_, rest.size() & ~(kPageBytes - 1));
      if (take == 0) return used;
      RETURN_IF_ERROR(sink_.OnWrite(region_, offset_, rest.first(take)));
      offset_ += take;
      left_ -= take;
      used += take;
    }
  }
}

absl::Status FrameParser::Begin(const FrameHeader& header) {
  if (!UnusedAreZero(header)) {
    return absl::InvalidArgumentError(
        fmt::format("the source sent a frame of type {} with a field set that it does not have",
                    static_cast<uint16_t>(header.type)));
  }
  switch (header.type) {
    case FrameType::kWrite:
      RETURN_IF_ERROR(CheckRange(header, "WRITE"));
      if (header.length > kLargestWrite) {
        return absl::InvalidArgumentError(fmt::format(
            "the source sent a WRITE of {} bytes; {} is the most", header.length, kLargestWrite));
      }
      region_ = header.region;
      offset_ = header.offset;
      left_ = header.length;
      return absl::OkStatus();
    case FrameType::kZero:
      RETURN_IF_ERROR(CheckRange(header, "ZERO"));
      return sink_.OnZero(header.region, header.offset, header.length);
    case FrameType::kFlush:
      return sink_.OnFlush(header.offset);
    case FrameType::kClose:
      closed_ = true;
      return absl::OkStatus();
    case FrameType::kFlushed:
    case FrameType::kError:
      break;
  }
  return absl::InvalidArgumentError(
      fmt::format("the source sent a frame of type {}, which a destination does not take",
                  static_cast<uint16_t>(header.type)));
}

absl::Status FrameParser::CheckRange(const FrameHeader& header, const char* name) const {
  if (header.region >= sizes_.size()) {
    return absl::InvalidArgumentError(
        fmt::format("the source sent a {} for region {}; the guest has {}", name, header.region,
                    sizes_.size()));
  }
  const uint64_t size = sizes_[header.region];
  const bool aligned = (header.offset | header.length) % kPageBytes == 0;
  const bool inside = header.offset <= size && header.length <= size - header.offset;
  if (!aligned || !inside || header.length == 0) {
    return absl::InvalidArgumentError(
        fmt::format("the source sent a {} of {} bytes at offset {} of region {} ({} bytes): {}",
                    name, header.length, header.offset, header.region, size,
                    !aligned             ? "not whole pages"
                    : header.length == 0 ? "nothing to do"
                                         : "outside the region"));
  }
  return absl::OkStatus();
}

}  // namespace ramferry::tcp
