#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/control_samples.h"
#include "transport/control/codec.h"
#include "transport/control/control.pb.h"
#include "transport/control/message_check.h"
#include "transport/control/text_check.h"

namespace ramferry {
namespace {

using ::testing::HasSubstr;

v1::Frame Encoded(const ControlMessage& message) {
  v1::Frame frame;
  const absl::Status status = EncodeFrame(message, frame);
  EXPECT_TRUE(status.ok()) << status;
  return frame;
}

// What the check says about the sample `T` after `spoil` has changed it.
template <class T>
std::string Complaint(T message, const std::function<void(T&)>& spoil) {
  EXPECT_TRUE(CheckMessage(message).ok()) << CheckMessage(message);
  spoil(message);
  const absl::Status status = CheckMessage(message);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  v1::Frame frame;
  EXPECT_EQ(EncodeFrame(message, frame), status) << "what breaks a limit is not sent either";
  return std::string(status.message());
}

std::string ReserveComplaint(const std::function<void(Reserve&)>& spoil) {
  return Complaint<Reserve>(SampleReserve(), spoil);
}
std::string ReservedComplaint(const std::function<void(Reserved&)>& spoil) {
  return Complaint<Reserved>(SampleReserved(), spoil);
}
std::string HelloComplaint(const std::function<void(Hello&)>& spoil) {
  return Complaint<Hello>(SampleHello(), spoil);
}

// RAMFERRY_UPDATE_CORPUS=1 in the environment writes them.
TEST(ControlCodec, fuzzer_begins_from_a_good_message_of_every_kind) {
  for (const ControlMessage& message : SampleMessages()) {
    const std::string path = std::string(RAMFERRY_CORPUS "/control_message/") + NameOf(message);
    if (std::getenv("RAMFERRY_UPDATE_CORPUS") != nullptr) {
      std::ofstream(path, std::ios::binary) << Encoded(message).SerializeAsString();
    }
    std::ifstream file(path, std::ios::binary);
    std::stringstream bytes;
    bytes << file.rdbuf();
    EXPECT_TRUE(bytes.str() == Encoded(message).SerializeAsString()) << path;
  }
}

TEST(ControlCodec, every_message_survives_the_wire) {
  const std::vector<ControlMessage> samples = SampleMessages();
  ASSERT_EQ(samples.size(), std::variant_size_v<ControlMessage>);
  for (size_t i = 0; i < samples.size(); ++i) {
    ASSERT_EQ(samples[i].index(), i) << "one sample of each kind, in order";
    const v1::Frame frame = Encoded(samples[i]);
    v1::Frame arrived;
    ASSERT_TRUE(arrived.ParseFromString(frame.SerializeAsString()));
    auto decoded = DecodeFrame(arrived);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->index(), i);
    EXPECT_EQ(Encoded(*decoded).SerializeAsString(), frame.SerializeAsString())
        << NameOf(samples[i]);
  }
}

TEST(ControlCodec, guest_and_offers_arrive_field_by_field) {
  auto decoded = DecodeFrame(Encoded(SampleReserve()));
  ASSERT_TRUE(decoded.ok());
  const auto& reserve = std::get<Reserve>(*decoded);
  EXPECT_EQ(reserve.guest, SampleReserve().guest);
  EXPECT_EQ(reserve.channels, 4u);
  EXPECT_EQ(reserve.transports, SampleReserve().transports);
  decoded = DecodeFrame(Encoded(SampleReserved()));
  ASSERT_TRUE(decoded.ok());
  const auto& offer = std::get<Reserved>(*decoded).offers.at(0);
  EXPECT_EQ(offer.transport, "tcp");
  EXPECT_EQ(offer.address, "192.0.2.7");
  EXPECT_EQ(offer.other_addresses, std::vector<std::string>({"192.0.2.8", "2001:db8::9"}));
  EXPECT_EQ(offer.port, 40000);
  EXPECT_TRUE(offer.encrypted);
  EXPECT_EQ(offer.tokens, SampleReserved().offers[0].tokens);
}

TEST(ControlCodec, hello_limits) {
  EXPECT_THAT(HelloComplaint([](Hello& m) { m.oldest_version = 0; }), HasSubstr("versions 0 to 1"));
  EXPECT_THAT(HelloComplaint([](Hello& m) { m.oldest_version = 2; }), HasSubstr("versions 2 to 1"));
  EXPECT_THAT(HelloComplaint([](Hello& m) { m.host.assign(256, 'h'); }),
              HasSubstr("Hello: host has 256 bytes, at most 255"));
  EXPECT_THAT(HelloComplaint([](Hello& m) { m.software = "\x1b[2J"; }),
              HasSubstr("software is not printable"));
  EXPECT_THAT(HelloComplaint([](Hello& m) { m.boot_id = "\xff"; }), HasSubstr("boot id"));
  for (const char* id :
       {"", "0", "../../../../etc/passwd", "01234567-89ab-cdef-0123-456789abcdeF",
        "0123456789ab-cdef-0123-456789abcdef-", "01234567-89ab-cdef-0123-456789abcdefa"}) {
    EXPECT_THAT(HelloComplaint([&](Hello& m) { m.migration_id = id; }), HasSubstr("UUID")) << id;
  }
  EXPECT_THAT(Complaint<HelloReply>({}, [](HelloReply& m) { m.version = 0; }),
              HasSubstr("version"));
}

TEST(ControlCodec, reservation_limits) {
  using R = Reserve;
  EXPECT_THAT(ReserveComplaint([](R& m) { m.channels = 0; }), HasSubstr("0 page channels"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.channels = 65; }), HasSubstr("65 page channels"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.transports.clear(); }), HasSubstr("0 transports"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.transports.resize(17, "x"); }), HasSubstr("17 tran"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.transports[0] = ""; }),
              HasSubstr("transport is empty"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.name = ""; }), HasSubstr("guest name is empty"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.name = "a\nb"; }), HasSubstr("guest name"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.hypervisor = ""; }), HasSubstr("hypervisor"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.machine.assign(256, 'm'); }),
              HasSubstr("machine"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.blueprint.assign((512 << 10) + 1, 'b'); }),
              HasSubstr("blueprint"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.vcpus = 65537; }), HasSubstr("65537 vcpus"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.disks.resize(65, m.guest.disks[0]); }),
              HasSubstr("65 disks"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.disks[0].device = ""; }),
              HasSubstr("disk 0: dev"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.disks[0].file.assign(4097, 'f'); }),
              HasSubstr("disk 0: file has 4097 bytes"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.disks[0].local_identity = "\t"; }),
              HasSubstr("disk 0: local identity"));
}

TEST(ControlCodec, region_limits) {
  using R = Reserve;
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.regions.clear(); }), HasSubstr("no memory"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.regions.resize(257); }), HasSubstr("257 memory"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.regions[1].name = "ram0"; }),
              HasSubstr("two regions are called ram0"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.regions[1].name = ""; }),
              HasSubstr("region 1: name is empty"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.regions[1].size = ByteCount(0); }),
              HasSubstr("region 1: size is 0"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.regions[1].size = MiB(3); }),
              HasSubstr("multiple of its backing page size"));
  EXPECT_THAT(
      ReserveComplaint([](R& m) { m.guest.regions[0].size = ByteCount(uint64_t{1} << 63); }),
      HasSubstr("more than a guest can have"));
  EXPECT_THAT(ReserveComplaint([](R& m) {
                for (auto& region : m.guest.regions) region.size = ByteCount(kMaxGuestBytes);
              }),
              HasSubstr("together"));
  for (const uint64_t page : {uint64_t{0}, uint64_t{2048}, uint64_t{12288}, uint64_t{2} << 30}) {
    EXPECT_THAT(
        ReserveComplaint([&](R& m) { m.guest.regions[0].backing_page_size = ByteCount(page); }),
        HasSubstr("power of two"));
  }
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.regions[0].numa_node = -2; }), HasSubstr("NUMA"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.regions[0].numa_node = 1024; }),
              HasSubstr("NUMA"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.guest.regions[1].populated = GiB(1); }),
              HasSubstr("hold data"));
  EXPECT_THAT(ReserveComplaint([](R& m) {
                m.channel_regions = {0, 1};
              }),
              HasSubstr("regions of 2 channels, where there are 4"));
  EXPECT_THAT(ReserveComplaint([](R& m) { m.channel_regions[2] = 2; }),
              HasSubstr("a channel brings region 2"));
}

TEST(ControlCodec, offer_limits) {
  using R = Reserved;
  EXPECT_THAT(ReservedComplaint([](R& m) { m.offers.clear(); }), HasSubstr("0 channel offers"));
  EXPECT_THAT(ReservedComplaint([](R& m) { m.offers.resize(17, m.offers[0]); }), HasSubstr("17"));
  EXPECT_THAT(ReservedComplaint([](R& m) { m.offers[1].transport = ""; }),
              HasSubstr("channel offer 1: transport is empty"));
  EXPECT_THAT(ReservedComplaint([](R& m) { m.offers[0].address = "beta.example"; }),
              HasSubstr("not a numeric"));
  EXPECT_THAT(ReservedComplaint([](R& m) { m.offers[0].other_addresses[1] = "beta.example"; }),
              HasSubstr("another address"));
  EXPECT_THAT(ReservedComplaint([](R& m) { m.offers[0].other_addresses.resize(16, "192.0.2.8"); }),
              HasSubstr("16 other addresses"));
  EXPECT_THAT(ReservedComplaint([](R& m) { m.offers[0].port = 0; }), HasSubstr("port is 0"));
  EXPECT_THAT(ReservedComplaint([](R& m) { m.offers[0].tokens.clear(); }), HasSubstr("0 tokens"));
  EXPECT_THAT(ReservedComplaint([](R& m) { m.offers[0].tokens.resize(65, std::string(32, 't')); }),
              HasSubstr("65 tokens"));
  EXPECT_THAT(ReservedComplaint([](R& m) { m.offers[0].tokens[1].pop_back(); }),
              HasSubstr("31 bytes instead of 32"));
  v1::Frame frame = Encoded(SampleReserved());
  frame.mutable_reserved()->mutable_offers(0)->set_port(65536 + 22);
  EXPECT_THAT(DecodeFrame(frame).status().message(), HasSubstr("port 65558"));
}

TEST(ControlCodec, limits_of_rounds_state_digests_and_times) {
  const auto samples = SampleMessages();
  EXPECT_THAT(Complaint<RoundNote>({.round = 1}, [](RoundNote& m) { m.round = 0; }),
              HasSubstr("round is 0"));
  EXPECT_THAT(Complaint<RoundNote>({.round = 1}, [](auto& m) { m.pages = PageCount(~0ull); }),
              HasSubstr("more than a guest"));
  EXPECT_THAT(Complaint<RoundNote>({.round = 1}, [](auto& m) { m.dirty = PageCount(~0ull); }),
              HasSubstr("more than a guest"));
  EXPECT_THAT(Complaint<DeviceState>({std::vector<std::byte>(kMaxDeviceStateChunk)},
                                     [](auto& m) { m.bytes.push_back(std::byte{0}); }),
              HasSubstr("262145 bytes"));
  const auto digest_complaint = [&](const std::function<void(SliceDigest&)>& spoil) {
    return Complaint<ImageComplete>({.digests = {{{0, {0, 1}}, std::string(32, 'd')}}},
                                    [&](ImageComplete& m) { spoil(m.digests[0]); });
  };
  EXPECT_THAT(digest_complaint([](SliceDigest& d) { d.sha256 += '!'; }), HasSubstr("33 bytes"));
  EXPECT_THAT(digest_complaint([](SliceDigest& d) { d.slice.region = 256; }), HasSubstr("outside"));
  EXPECT_THAT(digest_complaint([](SliceDigest& d) { d.slice.pages.count = 0; }),
              HasSubstr("outside"));
  EXPECT_THAT(digest_complaint([](SliceDigest& d) {
                d.slice.pages = {~0ull, 2};
              }),
              HasSubstr("outside"));
  EXPECT_THAT(digest_complaint([](SliceDigest& d) {
                d.slice.pages = {2, ~0ull};
              }),
              HasSubstr("outside"));
  EXPECT_THAT(Complaint<ImageComplete>({}, [](auto& m) { m.device_state_bytes = ~0ull; }),
              HasSubstr("not plausible"));
  v1::Frame frame = Encoded(samples[8]);
  frame.mutable_image_complete()->mutable_digests(0)->set_region(65536);
  EXPECT_THAT(DecodeFrame(frame).status().message(), HasSubstr("region 65536"));
  for (const double ms : {-1.0, std::nan(""), HUGE_VAL, 1e10}) {
    EXPECT_THAT(Complaint<Holding>({}, [&](Holding& m) { m.device_state_ms = ms; }),
                HasSubstr("no length of time"));
    EXPECT_THAT(Complaint<Activated>({}, [&](Activated& m) { m.resume_ms = ms; }),
                HasSubstr("no length of time"));
  }
}

TEST(ControlCodec, bad_reasons_of_a_peer_are_refused) {
  const auto decode_refused = [](int count, const std::string& reason) {
    v1::Frame frame;
    frame.mutable_refused();
    for (int i = 0; i < count; ++i) frame.mutable_refused()->add_reasons(reason);
    return DecodeFrame(frame).status();
  };
  EXPECT_TRUE(decode_refused(64, std::string(4096, 'r')).ok());
  EXPECT_THAT(decode_refused(0, "").message(), HasSubstr("0 reasons"));
  EXPECT_THAT(decode_refused(65, "r").message(), HasSubstr("65 reasons"));
  EXPECT_THAT(decode_refused(1, std::string(4097, 'r')).message(), HasSubstr("4097 bytes"));
  EXPECT_THAT(decode_refused(1, "\x1b]0;title\x07").message(), HasSubstr("not printable"));
  v1::Frame frame;
  frame.mutable_abort()->set_reason(std::string(4097, 'r'));
  EXPECT_FALSE(DecodeFrame(frame).ok());
  frame.mutable_handed_back()->set_reason(std::string(4097, 'r'));
  EXPECT_FALSE(DecodeFrame(frame).ok());
}

TEST(ControlCodec, a_reason_of_ours_is_made_to_fit_rather_than_lost) {
  const std::string umlauts = [] {
    std::string text = "x";
    for (int i = 0; i < 4000; ++i) text += "ü";
    return text;
  }();
  for (const ControlMessage& message :
       {ControlMessage(Abort{umlauts}), ControlMessage(HandedBack{"bell \a, latin-1 \xfc"}),
        ControlMessage(Refused{std::vector<std::string>(100, umlauts)}),
        ControlMessage(Refused{})}) {
    auto decoded = DecodeFrame(Encoded(message));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    if (auto* back = std::get_if<HandedBack>(&*decoded)) {
      EXPECT_EQ(back->reason, "bell ?, latin-1 ?");
    }
    if (auto* refused = std::get_if<Refused>(&*decoded); refused && refused->reasons.size() > 1) {
      EXPECT_EQ(refused->reasons.size(), 64u);
      EXPECT_EQ(refused->reasons.back(), "and 37 more reasons");
    }
  }
}

TEST(ControlCodec, an_unknown_kind_of_a_newer_peer_is_a_clear_error) {
  v1::Frame frame;
  ASSERT_TRUE(frame.ParseFromString(std::string("\xfa\x01\x00", 3)));  // field 31, empty message
  EXPECT_THAT(DecodeFrame(frame).status().message(), HasSubstr("newer"));
  EXPECT_EQ(DecodeFrame(v1::Frame()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ControlCodec, a_frame_that_is_too_large_is_not_sent) {
  ImageComplete image;
  image.digests.resize(40'000, {.slice = {0, {0, 16384}}, .sha256 = std::string(32, 'd')});
  v1::Frame frame;
  EXPECT_THAT(EncodeFrame(image, frame).message(), HasSubstr("at most 1048576 allowed"));
}

TEST(TextCheck, only_well_formed_printable_text_passes) {
  for (const char* good : {"", "plain", "größe", "日本語", "😀", "a~b"}) {
    EXPECT_TRUE(IsPrintableText(good, TextKind::kLine)) << good;
  }
  for (const char* bad :
       {"\x80", "\xc0\xaf", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\x7f", "\r", "\xc2\x9b", "\xe0\x80\xaf"}) {
    EXPECT_FALSE(IsPrintableText(bad, TextKind::kParagraph)) << bad;
  }
  EXPECT_FALSE(IsPrintableText(std::string_view("a\0b", 3), TextKind::kParagraph));
  EXPECT_TRUE(IsPrintableText("a\n\tb", TextKind::kParagraph));
  EXPECT_FALSE(IsPrintableText("a\n\tb", TextKind::kLine));
}

}  // namespace
}  // namespace ramferry
