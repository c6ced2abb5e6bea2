// One well-formed control message of every kind, for tests and as seeds of the fuzzer.
#pragma once

#include <string>
#include <vector>

#include "transport/control_channel.h"

namespace ramferry {

inline Reserve SampleReserve() {
  return {.guest = {.name = "web1",
                    .hypervisor = "qemu",
                    .hypervisor_version = "7.2.15",
                    .machine = "pc-q35-7.2",
                    .vcpus = 4,
                    .running = false,
                    .regions = {{.name = "ram0", .size = GiB(1)},
                                {.name = "ram1",
                                 .size = MiB(512),
                                 .backing_page_size = MiB(2),
                                 .numa_node = 1,
                                 .populated = MiB(100)}},
                    .disks = {{.device = "virtio0",
                               .file = "/srv/größe.qcow2",
                               .virtual_size = GiB(20),
                               .read_only = true,
                               .shareable = true,
                               .local_identity = "boot:64768:1234"}}},
          .channels = 4,
          .transports = {"rdma", "tcp"},
          .channel_regions = {0, 1, 0, 1}};
}

inline Reserved SampleReserved() {
  return {.offers = {{.transport = "tcp",
                      .address = "192.0.2.7",
                      .other_addresses = {"192.0.2.8", "2001:db8::9"},
                      .port = 40000,
                      .encrypted = true,
                      .tokens = {std::string(32, 'a'), std::string(31, '\xff') + '\0'}},
                     {.transport = "rdma", .port = 1, .tokens = {std::string(32, '\0')}}}};
}

inline Hello SampleHello() {
  return {.software = "ramferry 0.1.0",
          .host = "alpha.example",
          .boot_id = "7f4b3c56-0f6e-4a56-9b0c-0c8b8a3f0e11",
          .migration_id = "01234567-89ab-cdef-0123-456789abcdef"};
}

inline std::vector<ControlMessage> SampleMessages() {
  return {
      SampleHello(),
      HelloReply{.software = "ramferry 0.1.0", .host = "beta.example", .boot_id = "b"},
      SampleReserve(),
      SampleReserved(),
      Refused{{"no room:\n\t2 GiB are free", "another QEMU version: install 7.2"}},
      RoundNote{.round = 3, .pages = PageCount(100), .dirty = PageCount(7)},
      DeviceState{std::vector<std::byte>(1000, std::byte{0x5a})},
      Paused{},
      ImageComplete{.device_state_bytes = 350'000,
                    .digests = {{.slice = {1, {16384, 512}}, .sha256 = std::string(32, '\x80')}}},
      Holding{.device_state_ms = 6.25, .verified = true},
      HandOver{},
      Activated{.resume_ms = 1.5},
      HandedBack{"its memory file vanished"},
      Abort{"interrupted by the user"},
      DropTransport{.transport = "tcp", .offer_again = true},
      TransportDropped{.transport = "tcp",
                       .offers = {{.transport = "tcp",
                                   .address = "192.0.2.7",
                                   .port = 4711,
                                   .tokens = {std::string(32, 't')}}}},
  };
}

}  // namespace ramferry
