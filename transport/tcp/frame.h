// The frames of a TCP page channel, version 1, as they are on the wire (docs/protocol.md, "Page
// channels over TCP"). Only their layout; what a receiver accepts is decided in frame_parser.h.
//
// A frame is a header of 24 bytes, little endian, and for WRITE and ERROR `length` bytes after it:
//
//   0  u16 type      2  u16 region     4  u32 code     8  u64 offset     16  u64 length
//
// Fields that a frame does not use are zero.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ramferry::tcp {

inline constexpr uint16_t kVersion = 1;

enum class FrameType : uint16_t {
  kWrite = 1,    // source: `length` bytes for `offset` of `region` follow
  kZero = 2,     // source: `length` bytes from `offset` of `region` become zero
  kFlush = 3,    // source: answer with kFlushed and the same `offset` (a sequence number) ...
  kFlushed = 4,  // destination: ... when all frames before it are in guest memory
  kClose = 5,    // source: nothing more will come; the end of the stream is no accident
  kError = 6,    // destination: it gives the channel up; `code`, and `length` bytes of text follow
};

// Codes of kError.
enum class ErrorCode : uint32_t {
  kBadFrame = 1,  // the source broke this protocol
  kNoMemory = 2,  // the guest's memory file or its file system is full
  kStopped = 3,   // the destination ended the migration
  kInternal = 4,  // anything else; the text says what
};

struct FrameHeader {
  FrameType type{};
  uint16_t region = 0;
  uint32_t code = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
};

inline constexpr size_t kHeaderBytes = 24;
using HeaderBytes = std::array<std::byte, kHeaderBytes>;

// Longest payload of one kWrite. Long enough that headers cost nothing, short enough that a rate
// limit and an abort are felt at once.
inline constexpr uint64_t kLargestWrite = 1 << 20;
// Longest text of one kError.
inline constexpr size_t kLargestErrorText = 512;

static_assert(std::endian::native == std::endian::little, "fields are copied as they are");

template <class T>
void Store(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

template <class T>
[[nodiscard]] T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

inline void Encode(const FrameHeader& header, std::byte* to) {
  Store(to, static_cast<uint16_t>(header.type));
  Store(to + 2, header.region);
  Store(to + 4, header.code);
  Store(to + 8, header.offset);
  Store(to + 16, header.length);
}

[[nodiscard]] inline HeaderBytes Encoded(const FrameHeader& header) {
  HeaderBytes bytes;
  Encode(header, bytes.data());
  return bytes;
}

// From kHeaderBytes bytes. Nothing is checked: any value may come out, `type` too.
[[nodiscard]] inline FrameHeader Decode(const std::byte* from) {
  return {.type = static_cast<FrameType>(Load<uint16_t>(from)),
          .region = Load<uint16_t>(from + 2),
          .code = Load<uint32_t>(from + 4),
          .offset = Load<uint64_t>(from + 8),
          .length = Load<uint64_t>(from + 16)};
}

}  // namespace ramferry::tcp
