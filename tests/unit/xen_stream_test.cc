// What Ramferry writes for Xen's toolstack, read back by a reader made from the specifications
// alone (Xen 4.17: docs/specs/libxc-migration-stream.pandoc, libxl-migration-stream.pandoc, and
// tools/xl/xl.h for the save file around them). It shares no code with the writer.
#include <cstring>
#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hypervisor-glue/xen/migration_stream.h"

namespace ramferry {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

Bytes ToBytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::string ToText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Reads on; a read past the end fails the test.
class SpecReader {
 public:
  explicit SpecReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  [[nodiscard]] bool at_end() const { return position_ == bytes_.size(); }
  std::span<const std::byte> Take(size_t count) {
    if (count > bytes_.size() - position_) {
      ADD_FAILURE() << "the stream ends at " << position_ << ", " << count << " bytes are due";
      count = bytes_.size() - position_;
    }
    position_ += count;
    return bytes_.subspan(position_ - count, count);
  }
  template <class Integer>
  Integer Little() {
    Integer value = 0;
    const auto part = Take(sizeof value);
    for (size_t i = part.size(); i-- > 0;) {
      value = static_cast<Integer>(value << 8 | std::to_integer<Integer>(part[i]));
    }
    return value;
  }
  template <class Integer>
  Integer Big() {
    Integer value = 0;
    for (const std::byte byte : Take(sizeof value)) {
      value = static_cast<Integer>(value << 8 | std::to_integer<Integer>(byte));
    }
    return value;
  }
  // type, body. "If body_length is not a multiple of 8, the body is padded with zeroes".
  std::pair<uint32_t, std::string> Record() {
    const auto type = Little<uint32_t>();
    const auto length = Little<uint32_t>();
    std::string body = ToText(Take(length));
    for (const std::byte pad : Take((8 - length % 8) % 8)) EXPECT_EQ(pad, std::byte{0});
    return {type, std::move(body)};
  }

 private:
  std::span<const std::byte> bytes_;
  size_t position_ = 0;
};

// Reads xl's header; returns the configuration.
std::string ReadSaveFileHeader(SpecReader& reader) {
  EXPECT_EQ(ToText(reader.Take(32)), std::string("Xen saved domain, xl format\n \0 \r", 32));
  EXPECT_EQ(reader.Little<uint32_t>(), 0x01020304U) << "byte order";
  EXPECT_EQ(reader.Little<uint32_t>(), 3U) << "flags: JSON, stream version 2";
  EXPECT_EQ(reader.Little<uint32_t>(), 0U) << "optional flags";
  const auto optional_length = reader.Little<uint32_t>();
  const auto length = reader.Little<uint32_t>();
  EXPECT_EQ(optional_length, length + 4);
  std::string text = ToText(reader.Take(length));
  EXPECT_FALSE(text.empty());
  EXPECT_EQ(text.back(), '\0');
  text.pop_back();
  return text;
}

// Both headers before the records of libxc.
void ReadStreamHeaders(SpecReader& reader, uint32_t xen_major, uint32_t xen_minor) {
  EXPECT_EQ(ToText(reader.Take(8)), "LibxlFmt");
  EXPECT_EQ(reader.Big<uint32_t>(), 2U) << "version of libxl's stream";
  EXPECT_EQ(reader.Big<uint32_t>(), 0U) << "little-endian";
  EXPECT_THAT(reader.Record(), Pair(1, "")) << "LIBXC_CONTEXT";

  EXPECT_EQ(reader.Big<uint64_t>(), 0xffffffffffffffffULL);
  EXPECT_EQ(ToText(reader.Take(4)), "XENF");
  EXPECT_EQ(reader.Big<uint32_t>(), 3U) << "version of libxc's stream";
  EXPECT_EQ(reader.Big<uint16_t>(), 0U) << "little-endian";
  EXPECT_EQ(ToText(reader.Take(6)), std::string(6, '\0')) << "reserved";
  EXPECT_EQ(reader.Little<uint32_t>(), 2U) << "x86 HVM";
  EXPECT_EQ(reader.Little<uint16_t>(), 12U) << "page shift";
  EXPECT_EQ(reader.Little<uint16_t>(), 0U) << "reserved";
  EXPECT_EQ(reader.Little<uint32_t>(), xen_major);
  EXPECT_EQ(reader.Little<uint32_t>(), xen_minor);
}

Bytes SavedRecords() {
  Bytes records;
  AppendRecord(XenRecord::kTscInfo, ToBytes(std::string(24, 't')), records);
  AppendRecord(XenRecord::kHvmParams, ToBytes(std::string(24, 'p')), records);
  AppendRecord(XenRecord::kHvmContext, ToBytes("context"), records);
  return records;
}

TEST(XenStreamTest, a_reader_of_the_specification_finds_the_domain_and_nothing_else) {
  const StreamHead head{.configuration = R"({"c_info":{"type":"pvh"}})",
                        .xen_major = 4,
                        .xen_minor = 17,
                        .cpuid_policy = std::string(24, 'c'),
                        .msr_policy = std::string(16, 'm')};
  Bytes stream = EncodeHead(head);
  for (const Bytes& part : {SavedRecords(), EncodeTail()}) {
    stream.insert(stream.end(), part.begin(), part.end());
  }
  SpecReader reader(stream);
  EXPECT_EQ(ReadSaveFileHeader(reader), head.configuration);
  ReadStreamHeaders(reader, 4, 17);
  EXPECT_THAT(reader.Record(), Pair(0x11, head.cpuid_policy)) << "X86_CPUID_POLICY";
  EXPECT_THAT(reader.Record(), Pair(0x12, head.msr_policy)) << "X86_MSR_POLICY";
  EXPECT_THAT(reader.Record(), Pair(0x10, "")) << "STATIC_DATA_END";
  EXPECT_THAT(reader.Record(), Pair(0x08, std::string(24, 't'))) << "X86_TSC_INFO";
  EXPECT_THAT(reader.Record(), Pair(0x0a, std::string(24, 'p')))
      << "HVM_PARAMS must precede HVM_CONTEXT";
  EXPECT_THAT(reader.Record(), Pair(0x09, "context")) << "HVM_CONTEXT";
  EXPECT_THAT(reader.Record(), Pair(0x00, "")) << "END of libxc's stream";
  EXPECT_THAT(reader.Record(), Pair(0x00, "")) << "END of libxl's stream";
  EXPECT_TRUE(reader.at_end());
}

TEST(XenStreamTest, a_policy_that_is_empty_has_no_record) {
  // "Data records with no content should be elided on the source side."
  const Bytes stream = EncodeHead({.configuration = "{}", .xen_major = 4, .xen_minor = 17});
  SpecReader reader(stream);
  ReadSaveFileHeader(reader);
  ReadStreamHeaders(reader, 4, 17);
  EXPECT_THAT(reader.Record(), Pair(0x10, ""));
  EXPECT_TRUE(reader.at_end());
}

TEST(XenStreamTest, every_record_ends_on_a_multiple_of_8) {
  for (size_t length = 0; length < 20; ++length) {
    Bytes stream;
    AppendRecord(XenRecord::kHvmContext, ToBytes(std::string(length, 'x')), stream);
    EXPECT_EQ(stream.size() % 8, 0U);
    SpecReader reader(stream);
    EXPECT_THAT(reader.Record(), Pair(0x09, std::string(length, 'x')));
    EXPECT_TRUE(reader.at_end());
  }
}

TEST(XenStreamTest, a_source_may_send_the_saved_records_and_nothing_else) {
  EXPECT_TRUE(CheckSavedRecords(SavedRecords()).ok());
  EXPECT_FALSE(CheckSavedRecords({}).ok());

  Bytes more = SavedRecords();
  AppendRecord(XenRecord::kEnd, {}, more);
  EXPECT_THAT(CheckSavedRecords(more).message(), HasSubstr("goes on"));

  Bytes cut = SavedRecords();
  cut.resize(cut.size() - 1);
  EXPECT_FALSE(CheckSavedRecords(cut).ok());

  Bytes pages;
  AppendRecord(static_cast<XenRecord>(1), ToBytes(std::string(24, 'x')), pages);
  EXPECT_THAT(CheckSavedRecords(pages).message(), HasSubstr("record 0x1"));

  Bytes lies = SavedRecords();
  lies[4] = lies[5] = lies[6] = lies[7] = std::byte{0xff};  // the length of the first
  EXPECT_FALSE(CheckSavedRecords(lies).ok());
}

}  // namespace
}  // namespace ramferry
