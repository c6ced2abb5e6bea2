// A destination of RDMA page channels that lies, for a source made of rdma_probe to find out.
//
//   lying_destination OFFER MIB ADDRESS key|address
//
// It takes one connection as rdma::RdmaListener does, knows the token, lets a write be proved, and
// has MIB MiB of memory registered. But what it answers to a request to register a piece is a key
// that is good for nothing, or an address outside of that memory. The devices must refuse what the
// source then writes. Ends with 0 when the connection is broken, as it should be.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/units.h"
#include "fmt/format.h"
#include "transport/rdma/cm_link.h"
#include "transport/rdma/message_slots.h"
#include "transport/rdma/wire.h"

namespace ramferry::rdma {
namespace {

constexpr uint32_t kAnswerSlot = kMessageCredits;

class Liar {
 public:
  Liar(uint64_t bytes, bool about_key) : memory_of_guest_(bytes), about_key_(about_key) {}

  absl::Status Run(const std::string& offer_file, const std::string& address) {
    RETURN_IF_ERROR(Listen(offer_file, address));
    RETURN_IF_ERROR(Accept());
    for (;;) {
      std::array<ibv_wc, 16> completions;
      ASSIGN_OR_RETURN(const size_t found, link_->Poll(completions));
      for (size_t i = 0; i < found; ++i) {
        if (completions[i].status != IBV_WC_SUCCESS) {
          fmt::print("the connection broke: {}\n", ibv_wc_status_str(completions[i].status));
          return absl::OkStatus();
        }
        if ((completions[i].opcode & IBV_WC_RECV) != 0) {
          RETURN_IF_ERROR(Answer(completions[i].wr_id));
        }
      }
      if (found == 0) link_->Wait(In(std::chrono::seconds(1)));
    }
  }

 private:
  absl::Status Listen(const std::string& offer_file, const std::string& address) {
    events_.reset(rdma_create_event_channel());
    sockaddr_in here{};
    here.sin_family = AF_INET;
    ::inet_pton(AF_INET, address.c_str(), &here.sin_addr);
    if (!events_ || rdma_create_id(events_.get(), &listening_, nullptr, RDMA_PS_TCP) != 0 ||
        rdma_bind_addr(listening_, reinterpret_cast<sockaddr*>(&here)) != 0 ||
        rdma_listen(listening_, 1) != 0) {
      return ErrnoStatus(errno, "cannot listen for RDMA connections");
    }
    std::ofstream(offer_file + ".new")
        << address << ' ' << ntohs(rdma_get_src_port(listening_)) << "\n6c696172\n";
    std::rename((offer_file + ".new").c_str(), offer_file.c_str());
    return absl::OkStatus();
  }

  absl::Status Accept() {
    ASSIGN_OR_RETURN(rdma_cm_event * event,
                     AwaitEvent(events_.get(), RDMA_CM_EVENT_CONNECT_REQUEST, Deadline::max(), -1));
    rdma_cm_id* const id = event->id;
    const auto* data = static_cast<const std::byte*>(event->param.conn.private_data);
    const auto greeting = ParseGreeting({data, event->param.conn.private_data_len});
    rdma_ack_cm_event(event);
    RETURN_IF_ERROR(greeting.status());
    ASSIGN_OR_RETURN(memory_, CmMemory::Create(id->verbs, /*on_demand=*/false));
    ASSIGN_OR_RETURN(link_, CmLink::Create(id, nullptr, *memory_, {}));
    ASSIGN_OR_RETURN(messages_, MessageSlots::Create(*memory_, kMessageCredits + 1));
    for (uint32_t slot = 0; slot < kMessageCredits; ++slot) {
      RETURN_IF_ERROR(messages_.Receive(*link_, slot));
    }
    ASSIGN_OR_RETURN(
        registration_,
        memory_->Register(memory_of_guest_.data(), memory_of_guest_.size(), Access::kRemoteWrite));
    RETURN_IF_ERROR(link_->BringUp());
    Welcome welcome = MakeWelcome(*greeting, "liar");
    welcome.largest_registration = memory_->largest_registration();
    welcome.most_pieces = 1000;
    welcome.proof_rkey = registration_.rkey();
    welcome.proof_address = Address();
    rdma_conn_param parameters{};
    parameters.qp_num = link_->queue_pair();
    parameters.private_data = &welcome;
    parameters.private_data_len = sizeof welcome;
    parameters.rnr_retry_count = 7;
    if (rdma_accept(id, &parameters) != 0) return ErrnoStatus(errno, "rdma_accept");
    return absl::OkStatus();
  }

  absl::Status Answer(uint64_t slot) {
    Message answer = messages_[slot];
    switch (answer.type) {
      case MessageType::kProve:
        answer.type = MessageType::kProved;
        break;
      case MessageType::kRegister:
        answer.type = MessageType::kRegistered;
        answer.rkey = registration_.rkey() ^ (about_key_ ? 0xabcd00U : 0U);
        answer.address = Address() + (about_key_ ? 0 : memory_of_guest_.size());
        break;
      case MessageType::kFlush:
        answer.type = MessageType::kFlushed;
        break;
      default:
        return messages_.Receive(*link_, slot);
    }
    messages_[kAnswerSlot] = answer;
    RETURN_IF_ERROR(messages_.Send(*link_, kAnswerSlot));
    return messages_.Receive(*link_, slot);
  }
  [[nodiscard]] uint64_t Address() const {
    return reinterpret_cast<uintptr_t>(memory_of_guest_.data());
  }

  std::vector<std::byte> memory_of_guest_;
  const bool about_key_;
  EventChannel events_;
  rdma_cm_id* listening_ = nullptr;
  std::unique_ptr<CmMemory> memory_;
  MessageSlots messages_;
  Registration registration_;
  std::unique_ptr<CmLink> link_;  // goes first
};

int Main(const std::vector<std::string>& words) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (words.size() != 5) {
    fmt::print(stderr, "usage: lying_destination OFFER MIB ADDRESS key|address\n");
    return 2;
  }
  Liar liar(MiB(std::stoull(words[2])).value(), words[4] == "key");
  const absl::Status status = liar.Run(words[1], words[3]);
  if (!status.ok()) fmt::print("error: {}\n", ramferry::Message(status));
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace ramferry::rdma

int main(int argc, char** argv) {
  return ramferry::rdma::Main(std::vector<std::string>(argv, argv + argc));
}
