#include "transport/rdma/landing.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/status/status.h"
#include "base/populate.h"
#include "base/status.h"
#include "fmt/format.h"

namespace ramferry::rdma {
namespace {

constexpr uint32_t kAnswerSlots = 8;

bool IsZero(const std::byte* page) {
  return page[0] == std::byte{0} && std::memcmp(page, page + 1, kPageBytes - 1) == 0;
}

void ClearTouched(std::byte* begin, uint64_t length) {
  for (uint64_t at = 0; at < length; at += kPageBytes) {
    // A read of an untouched anonymous page populates nothing.
    if (!IsZero(begin + at)) std::memset(begin + at, 0, kPageBytes);
  }
}

}  // namespace

absl::Status PinAccount::Take(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (budget_ != 0 && pinned_ + bytes > budget_) {
    return absl::ResourceExhaustedError(
        fmt::format("the source wants {} MiB registered here, the pin budget is {} MiB",
                    (pinned_ + bytes) >> 20, budget_ >> 20));
  }
  pinned_ += bytes;
  return absl::OkStatus();
}

void PinAccount::Give(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  pinned_ -= bytes;
}

absl::Status Landing::Check(const WireRange& range) const {
  if (range.region >= regions_.size() || range.length == 0 || range.offset % kPageBytes != 0 ||
      range.length % kPageBytes != 0 ||
      range.offset > regions_[range.region].description.size.value() ||
      range.length > regions_[range.region].description.size.value() - range.offset) {
    return absl::InvalidArgumentError(
        fmt::format("the source named {} bytes at {} of region {}, which this guest does not have",
                    range.length, range.offset, range.region));
  }
  return absl::OkStatus();
}

absl::StatusOr<Landing::Key> Landing::Register(uint32_t piece, const WireRange& range) {
  RETURN_IF_ERROR(Check(range));
  if (piece >= kMostPieces) {
    return absl::InvalidArgumentError(fmt::format("the source named piece {}", piece));
  }
  RETURN_IF_ERROR(pins_->Take(range.length));
  {
    const std::lock_guard lock(mutex_);
    if (!pieces_.try_emplace(piece, Landed{range.length, {}}).second) {
      pins_->Give(range.length);
      return absl::InvalidArgumentError(fmt::format("the source registered piece {} twice", piece));
    }
  }
  const MappedRegion& region = regions_[range.region];
  std::byte* const address = region.address + range.offset;
  auto registration = memory_.Register(address, range.length, Access::kRemoteWrite);  // no lock
  const std::lock_guard lock(mutex_);
  const auto entry = pieces_.find(piece);
  if (entry == pieces_.end()) return absl::CancelledError("the destination was stopped");
  if (!registration.ok()) {
    pins_->Give(range.length);
    pieces_.erase(entry);
    return Annotate(registration.status(),
                    fmt::format("cannot register {} MiB at {} MiB of region {} at the destination",
                                range.length >> 20, range.offset >> 20, region.description.name));
  }
  entry->second.registration = *std::move(registration);
  return Key{entry->second.registration.rkey(), reinterpret_cast<uintptr_t>(address)};
}

absl::Status Landing::Release(uint32_t piece) {
  const std::lock_guard lock(mutex_);
  const auto entry = pieces_.find(piece);
  if (entry == pieces_.end()) {
    return absl::InvalidArgumentError(
        fmt::format("the source released piece {}, which it does not have", piece));
  }
  pins_->Give(entry->second.length);
  pieces_.erase(entry);
  return absl::OkStatus();
}

absl::Status Landing::Clear(const WireRange& range) {
  RETURN_IF_ERROR(Check(range));
  const MappedRegion& region = regions_[range.region];
  const uint64_t end = range.offset + range.length;
  if (!region.can_pwrite()) {
    if (region.fd >= 0) RETURN_IF_ERROR(Populate(region.address + range.offset, range.length));
    ClearTouched(region.address + range.offset, range.length);
    return absl::OkStatus();
  }
  // A hole of the backing file is zero already, and must stay a hole. Holes are not punched here:
  // a registered page would then be no page of the file any more.
  uint64_t at = range.offset;
  while (at < end) {
    const off_t data = ::lseek(region.fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return absl::OkStatus();
    if (data < 0) return ErrnoStatus(errno, "cannot look for data in the guest's memory file");
    const uint64_t from = std::max(at, static_cast<uint64_t>(data)) & ~(kPageBytes - 1);
    if (from >= end) return absl::OkStatus();
    // A page at a time: SEEK_HOLE would walk to the next hole, however far.
    std::memset(region.address + from, 0, kPageBytes);
    at = from + kPageBytes;
  }
  return absl::OkStatus();
}

void Landing::Close() {
  const std::lock_guard lock(mutex_);
  for (const auto& [piece, landed] : pieces_) pins_->Give(landed.length);
  pieces_.clear();
}

absl::StatusOr<std::unique_ptr<ChannelService>> ChannelService::Create(std::unique_ptr<Link> link,
                                                                       Memory& memory,
                                                                       Landing& landing) {
  std::unique_ptr<ChannelService> service(new ChannelService(std::move(link), landing));
  RETURN_IF_ERROR(service->Prepare(memory));
  return service;
}

ChannelService::~ChannelService() {
  link_.reset();
}  // before the memory of its requests

absl::Status ChannelService::Prepare(Memory& memory) {
  constexpr uint32_t kSlots = kMessageCredits + kAnswerSlots;
  ASSIGN_OR_RETURN(messages_, MessageSlots::Create(memory, kSlots));
  for (uint32_t slot = 0; slot < kMessageCredits; ++slot) {
    RETURN_IF_ERROR(messages_.Receive(*link_, slot));
  }
  proof_ = std::make_unique<WireRange>();
  ASSIGN_OR_RETURN(proof_registration_,
                   memory.Register(reinterpret_cast<const std::byte*>(proof_.get()),
                                   sizeof(WireRange), Access::kRemoteWrite));
  return absl::OkStatus();
}

absl::Status ChannelService::Serve() {
  for (bool goodbye = false;;) {
    RETURN_IF_ERROR(ServeSome(goodbye));
    if (goodbye) return absl::OkStatus();
    link_->Wait(In(std::chrono::seconds(1)));
  }
}

absl::Status ChannelService::ServeSome(bool& goodbye) {
  std::array<ibv_wc, 16> completions;
  for (;;) {
    ASSIGN_OR_RETURN(const size_t found, link_->Poll(completions));
    for (size_t i = 0; i < found; ++i) {
      const ibv_wc& completion = completions[i];
      if (goodbye) return absl::OkStatus();
      if (completion.status != IBV_WC_SUCCESS) {
        return absl::UnavailableError(fmt::format("the RDMA connection from the source broke ({})",
                                                  ibv_wc_status_str(completion.status)));
      }
      if ((completion.opcode & IBV_WC_RECV) == 0) {
        --answers_in_flight_;
        continue;
      }
      const Message message = messages_[completion.wr_id];
      const bool whole = IsMessage(completion);
      RETURN_IF_ERROR(messages_.Receive(*link_, completion.wr_id));
      absl::Status handled =
          whole ? Handle(message, goodbye)
                : absl::InvalidArgumentError("the source sent what is no RDMA message");
      if (!handled.ok()) {
        // The source may be told why; that it hears it is not certain.
        (void)Answer(MakeFailed(message.sequence, std::string(handled.message())));
        return handled;
      }
    }
    if (found == 0) return absl::OkStatus();
  }
}

absl::Status ChannelService::Handle(const Message& message, bool& goodbye) {
  Message answer{};
  answer.sequence = message.sequence;
  answer.piece = message.piece;
  switch (message.type) {
    case MessageType::kRegister: {
      ASSIGN_OR_RETURN(const Landing::Key key, landing_.Register(message.piece, message.ranges[0]));
      answer.type = MessageType::kRegistered;
      answer.rkey = key.rkey;
      answer.address = key.address;
      return Answer(answer);
    }
    case MessageType::kRelease:
      RETURN_IF_ERROR(landing_.Release(message.piece));
      answer.type = MessageType::kReleased;
      return Answer(answer);
    case MessageType::kZero:
      for (uint32_t i = 0; i < std::min<uint32_t>(message.count, kRangesPerMessage); ++i) {
        RETURN_IF_ERROR(landing_.Clear(message.ranges[i]));
      }
      return absl::OkStatus();
    case MessageType::kFlush:
      // This message completed here, so all writes before it on this queue pair are visible.
      answer.type = MessageType::kFlushed;
      return Answer(answer);
    case MessageType::kProve:
      if (std::memcmp(proof_.get(), &message.ranges[0], sizeof(WireRange)) != 0) {
        return absl::UnavailableError(
            "what the source wrote over RDMA did not arrive in this host's memory");
      }
      answer.type = MessageType::kProved;
      return Answer(answer);
    case MessageType::kBye:
      goodbye = true;
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError("the source sent an RDMA message of an unknown kind");
  }
}

absl::Status ChannelService::Answer(const Message& message) {
  if (answers_in_flight_ >= kAnswerSlots) {
    return absl::InvalidArgumentError("the source asks without waiting for the answers");
  }
  const uint32_t slot = kMessageCredits + next_answer_;
  next_answer_ = (next_answer_ + 1) % kAnswerSlots;
  messages_[slot] = message;
  RETURN_IF_ERROR(messages_.Send(*link_, slot));
  ++answers_in_flight_;
  return absl::OkStatus();
}

}  // namespace ramferry::rdma
