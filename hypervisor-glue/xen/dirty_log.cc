#include "hypervisor-glue/xen/dirty_log.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iterator>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/units.h"
#include "fmt/format.h"

namespace ramferry {
namespace {

// A round that skips what is dirty again peeks part by part: nothing would be, if all of that were
// of the moment in which it began. And each fetch is of the whole log.
constexpr std::chrono::milliseconds kOldestPeek{20};

}  // namespace

DirtyLog::DirtyLog(const XenControl& xen, XenDomain domain, uint64_t frames)
    : xen_(xen),
      domain_(std::move(domain)),
      frames_(frames),
      collected_(frames,
                 [this](std::span<uint64_t> words) {
                   // The last time there is nothing left to write-protect.
                   return Read(XEN_DOMCTL_SHADOW_OP_CLEAN,
                               stopped_ ? XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL : 0, words);
                 }),
      peeked_(frames, [this](std::span<uint64_t> words) {
        return Read(XEN_DOMCTL_SHADOW_OP_PEEK, 0, words);
      }) {}

DirtyLog::~DirtyLog() {
  if (log_ != nullptr) xc__hypercall_buffer_free_pages(xen_.xc(), &buffer_, buffer_pages_);
}

absl::StatusOr<std::unique_ptr<DirtyLog>> DirtyLog::Enable(const XenControl& xen,
                                                           const XenDomain& domain, uint64_t frames,
                                                           const PageRuns& ram) {
  std::unique_ptr<DirtyLog> log(new DirtyLog(xen, domain, frames));
  const uint64_t bytes = (frames + 63) / 64 * 8;
  log->buffer_pages_ = static_cast<int>((bytes + kPageBytes - 1) / kPageBytes);
  log->buffer_.ubuf = MAP_FAILED;  // (void*)-1, as DECLARE_HYPERCALL_BUFFER has it
  log->log_ = xc__hypercall_buffer_alloc_pages(xen.xc(), &log->buffer_, log->buffer_pages_);
  if (log->log_ == nullptr) return XenControl::Error(domain, "no memory for its dirty bitmap");
  for (const PageRun& run : ram) log->collected_.Mark(run);
  log->peeked_.Renew();
  if (xc_shadow_control(xen.xc(), domain.id, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, nullptr, 0) <
      0) {
    if (errno == EINVAL) {
      return absl::FailedPreconditionError(
          fmt::format("Xen does not track the writes of domain {}: another migration or save of it "
                      "is under way "
                      "(`ramferry status` shows one of ours that was broken off), or it has a PCI "
                      "device passed "
                      "through",
                      domain.name));
    }
    return XenControl::Error(domain, "Xen cannot track its writes");
  }
  return log;
}

absl::Status DirtyLog::Disable(const XenControl& xen, const XenDomain& domain) {
  if (xc_shadow_control(xen.xc(), domain.id, XEN_DOMCTL_SHADOW_OP_OFF, nullptr, 0) >= 0) {
    return absl::OkStatus();
  }
  return XenControl::Error(domain, "Xen does not stop tracking its writes");
}

absl::Status DirtyLog::Read(unsigned operation, unsigned mode, std::span<uint64_t> words) {
  const std::lock_guard lock(mutex_);
  const uint64_t bytes = words.size_bytes();
  std::memset(log_, 0, bytes);
  xc_shadow_op_stats_t stats{};
  const auto got =
      xc_logdirty_control(xen_.xc(), domain_.id, operation, &buffer_, frames_, mode, &stats);
  if (got < 0 || static_cast<uint64_t>(got) != frames_) {
    return XenControl::Error(domain_, "Xen does not say what it wrote");
  }
  std::memcpy(words.data(), log_, bytes);
  return absl::OkStatus();
}

absl::Status DirtyLog::Collect(PageRun frames, uint64_t base, PageRuns& runs) {
  return collected_.Take(frames, -static_cast<int64_t>(base), runs);
}

absl::Status DirtyLog::Peek(PageRun frames, uint64_t base, PageRuns& runs) {
  if (const Deadline now = Clock::now(); now - peeked_at_.load() > kOldestPeek) {
    peeked_at_ = now;
    peeked_.Renew();
  }
  // What was fetched for a round that has not taken it yet is gone from Xen's log.
  PageRuns peeked;
  PageRuns pending;
  const int64_t offset = -static_cast<int64_t>(base);
  RETURN_IF_ERROR(peeked_.Take(frames, offset, peeked));
  collected_.Look(frames, offset, pending);
  std::vector<PageRun> both;
  std::merge(peeked.begin(), peeked.end(), pending.begin(), pending.end(), std::back_inserter(both),
             [](const PageRun& a, const PageRun& b) { return a.first < b.first; });
  uint64_t end = 0;
  for (PageRun run : both) {
    if (run.end() <= end) continue;
    const uint64_t first = std::max(run.first, end);
    AppendRun(runs, {.first = first, .count = run.end() - first});
    end = run.end();
  }
  return absl::OkStatus();
}

void DirtyLog::GuestStopped() {
  stopped_ = true;
  collected_.Renew();
}

}  // namespace ramferry
