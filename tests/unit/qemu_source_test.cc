// What a QEMU on the source offers the engine: its memory, and what may be done with it. The
// monitor is scripted; the guest's memory is mapped by this process, which is the one behind the
// monitor.
#include "hypervisor-glue/qemu/qemu_source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>

#include "base/process_identity.h"
#include "fake_qmp_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ramferry {
namespace {

using nlohmann::json;

constexpr uint64_t kSize = 16 * 4096;

class Source : public testing::Test {
 protected:
  Source() {
    qemu_.Return("query-version", {{"qemu", {{"major", 7}, {"minor", 2}, {"micro", 22}}}});
    qemu_.Return("query-name", {{"name", "web1"}});
    qemu_.Return("query-status", {{"status", "running"}});
    qemu_.Return("query-cpus-fast", json::array({json::object()}));
    qemu_.Return("query-migrate", json::object());
    qemu_.Return("query-block", json::array());
    qemu_.Return("query-named-block-nodes", json::array());
    qemu_.Handle("qom-get", [this](const json& arguments) {
      const json values = {{"type", "pc-q35-7.2-machine"},
                           {"size", kSize},
                           {"share", true},
                           {"mem-path", directory_.File("ram")}};
      const std::string property = arguments.value("property", "");
      return json{{"return", values.value(property, json())}}.dump() + "\n";
    });
    const UniqueFd fd(::open(directory_.File("ram").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_EQ(::ftruncate(fd.get(), kSize), 0);
    memory_ = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    EXPECT_NE(memory_, MAP_FAILED);
  }
  ~Source() override { ::munmap(memory_, kSize); }

  // Takes up a guest that has this device.
  absl::StatusOr<std::unique_ptr<QemuSource>> GuestWith(const std::string& device) {
    qemu_.Handle("qom-list", [device](const json& arguments) {
      json list = json::array();
      if (arguments.value("path", "") == "/objects") {
        list.push_back({{"name", "ram"}, {"type", "child<memory-backend-file>"}});
      } else if (arguments.value("path", "") == "/machine/peripheral-anon") {
        list.push_back({{"name", "device[0]"}, {"type", "child<" + device + ">"}});
      }
      return json{{"return", list}}.dump() + "\n";
    });
    // The monitor's process is this one.
    const ProcessIdentity self = IdentityOf(::getpid());
    const json undo = {
        {"capabilities", json::object()},
        {"max-bandwidth", 0},
        {"process", {{"boot_id", self.boot_id}, {"pid", self.pid}, {"started", self.started}}}};
    return QemuSource::TakeUp(qemu_.path(), undo.dump(), true);
  }

  TestDirectory directory_;
  FakeQmpServer qemu_;
  void* memory_ = nullptr;
};

// A network card pins what the guest had when it was registered: a page that went back to the host
// and came again is another one, and its new contents would never arrive.
TEST_F(Source, memory_of_a_guest_that_can_give_it_back_is_not_registered) {
  const std::vector<std::pair<std::string, bool>> devices = {
      {"virtio-net-pci", true},      {"virtio-balloon-pci", false},
      {"virtio-balloon-ccw", false}, {"virtio-balloon-pci-non-transitional", false},
      {"virtio-mem-pci", false},     {"hv-balloon", false}};
  for (const auto& [device, can_register] : devices) {
    const auto guest = GuestWith(device);
    if (absl::IsPermissionDenied(guest.status())) GTEST_SKIP() << "not root";
    ASSERT_TRUE(guest.ok()) << guest.status();
    ASSERT_EQ((*guest)->regions().size(), 1u);
    EXPECT_EQ((*guest)->regions()[0].can_register, can_register) << device;
  }
}

// QEMU 7.2 does not see a cancel that comes between its stop of the guest and its wait for
// migrate-continue, and waits for ever.
TEST_F(Source, cancelled_migration_that_waits_for_ever_is_ended) {
  qemu_.Handle("query-migrate", [this](const json&) {
    bool ended = false;
    for (const json& command : qemu_.commands()) {
      ended |= command["execute"] == "migrate-continue" &&
               command["arguments"].value("state", "") == "cancelling";
    }
    return json{{"return", {{"status", ended ? "cancelled" : "cancelling"}}}}.dump() + "\n";
  });
  qemu_.Return("migrate_cancel", json::object());
  qemu_.Return("migrate-continue", json::object());
  qemu_.Return("announce-self", json::object());
  const auto guest = GuestWith("virtio-net-pci");
  if (absl::IsPermissionDenied(guest.status())) GTEST_SKIP() << "not root";
  ASSERT_TRUE(guest.ok()) << guest.status();
  const absl::Status undone = (*guest)->RollBack();
  EXPECT_TRUE(undone.ok()) << undone;
}

// QEMU says "failed" before it has let go of the guest, and until then refuses to run it.
TEST_F(Source, guest_that_qemu_still_holds_is_waited_for) {
  qemu_.Return("query-migrate", {{"status", "failed"}});
  qemu_.Return("announce-self", json::object());
  const auto guest = GuestWith("virtio-net-pci");
  if (absl::IsPermissionDenied(guest.status())) GTEST_SKIP() << "not root";
  ASSERT_TRUE(guest.ok()) << guest.status();
  std::atomic<int> asked{0};
  qemu_.Handle("query-status", [&asked](const json&) {
    const char* state = ++asked < 4 ? "finish-migrate" : "running";
    return json{{"return", {{"status", state}}}}.dump() + "\n";
  });
  qemu_.Refuse("cont", "Migration is not finalized yet");
  const absl::Status undone = (*guest)->RollBack();
  EXPECT_TRUE(undone.ok()) << undone;
}

// NotFound would say that QEMU has ended, and a guest that lives be forgotten.
TEST_F(Source, guest_whose_memory_is_no_longer_mapped_is_no_guest_that_has_ended) {
  ::munmap(memory_, kSize);
  qemu_.Return("announce-self", json::object());
  const auto guest = GuestWith("virtio-net-pci");
  memory_ = ::mmap(nullptr, kSize, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_TRUE(guest.ok()) << guest.status();
  EXPECT_TRUE((*guest)->RollBack().ok());
}

}  // namespace
}  // namespace ramferry
