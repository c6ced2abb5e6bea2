// Stage 5 of the source: the ownership message, its answer, and what to do when there is none.
#include <algorithm>
#include <chrono>
#include <thread>

#include "base/status.h"
#include "engine/source_migration.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace ramferry {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAskAgain{500};

}  // namespace

void SourceMigration::Activation() {
  const absl::Status sent = context_.control.Send(HandOver{});
  handed_over_ = Clock::now();
  report_.downtime_parts.commit = MillisecondsBetween(holding_, handed_over_);
  // A Send that failed may still have delivered: only the destination knows.
  if (!sent.ok()) return Settle(sent);
  const auto answer = context_.control.Receive(In(context_.options.answer_time));
  if (!answer.ok()) return Settle(answer.status());
  if (std::holds_alternative<Activated>(*answer)) {
    const Deadline now = Clock::now();
    report_.downtime_parts.resume = MillisecondsBetween(handed_over_, now);
    report_.downtime_ms = MillisecondsBetween(stopped_, now);
    return FinishGone();
  }
  if (const auto* back = std::get_if<HandedBack>(&*answer)) {
    return FinishHere(absl::AbortedError(
        "the destination could not run the guest and gave it back: " + back->reason));
  }
  // It gave the guest up before the ownership message reached it, which it then never takes.
  if (const auto* refused = std::get_if<Refused>(&*answer)) {
    return FinishHere(absl::AbortedError(
        fmt::format("the destination gave the guest up: {}", fmt::join(refused->reasons, "; "))));
  }
  Settle(absl::InvalidArgumentError(
      fmt::format("the destination answered the ownership message with {}", NameOf(*answer))));
}

void SourceMigration::Settle(const absl::Status& why) {
  context_.observer.OnNote(fmt::format(
      "the answer to the ownership message is lost ({}); asking the destination", Message(why)));
  for (const Deadline deadline = In(context_.options.settle_time); Clock::now() < deadline;) {
    const auto verdict = context_.settle(report_.migration_id);
    if (verdict.ok() && *verdict == Verdict::kOwned) {
      report_.downtime_ms = MillisecondsBetween(stopped_, Clock::now());
      return FinishGone();
    }
    if (verdict.ok() && *verdict == Verdict::kReleased) {
      return FinishHere(absl::AbortedError(
          "the connection broke at the ownership message; the destination did not take the guest"));
    }
    if (verdict.ok() && *verdict == Verdict::kUnknown) break;
    std::this_thread::sleep_for(kAskAgain);
  }
  report_.downtime_ms = MillisecondsBetween(stopped_, Clock::now());  // so far
  context_.guest.LeaveStopped().IgnoreError();
  Enter(Stage::kInDoubt).IgnoreError();
  report_.outcome = Outcome::kInDoubt;
  report_.stage = stages_.stage();
  report_.error = fmt::format(
      "the destination got the ownership message or did not; it cannot be asked ({}). The guest "
      "stays paused here. Run `ramferry resolve {}` when the destination can be reached, or see "
      "docs/handover.md",
      Message(why), report_.migration_id);
}

// The guest runs on the destination.
void SourceMigration::FinishGone() {
  report_.outcome = Outcome::kMigrated;
  const bool written = WriteJournal(Phase::kGone).ok();
  Enter(Stage::kDone).IgnoreError();
  report_.stage = stages_.stage();
  bool forgotten = false;
  if (const absl::Status status = context_.guest.Commit(); status.ok()) {
    forgotten = context_.journal.Remove(report_.migration_id, Role::kSource).ok();
  } else {
    context_.observer.OnNote(Message(status));  // the entry stays, for `ramferry resolve`
  }
  // Only when nothing that is on our disk, even after a crash of this host, makes us ask again.
  if (written || forgotten) context_.confirm(report_.migration_id);
}

// The guest is, or is again, the source's.
void SourceMigration::FinishHere(const absl::Status& why) {
  report_.outcome = Outcome::kRolledBack;
  report_.stage = stages_.stage();
  report_.error = Message(why);
  const bool handed_over = !SourceOwns(stages_.stage());
  // On the destination's word. If this cannot be written, the disk still says "handing over", and
  // asking again gives the same answer.
  if (handed_over) WriteJournal(Phase::kReturned).IgnoreError();
  // An Abort says that we shall never ask: not while "handing over" may be on our disk.
  const bool may_ask = !handed_over && entry_.phase == Phase::kHandingOver;
  const Abort abort{.reason = report_.error};
  if (!handed_over && !may_ask) context_.control.Send(abort).IgnoreError();
  // A failure may have come between the guest's stop and our hearing of it.
  if (stopped_ == Deadline{}) stopped_ = context_.guest.paused_at();
  const absl::Status undone = context_.guest.RollBack();
  if (stopped_ != Deadline{}) report_.downtime_ms = MillisecondsBetween(stopped_, Clock::now());
  if (absl::IsNotFound(undone)) {
    report_.error = fmt::format(
        "{}: the guest was lost with it, or had shut down. It runs on neither host, and nothing of "
        "it is kept on the destination; start it here again, as after any crash. (Noticed as: {})",
        Message(undone), report_.error);
  } else if (!undone.ok()) {
    report_.error += fmt::format("; undoing it on this host failed: {}", Message(undone));
    return;  // the entry stays, for `ramferry resolve`
  }
  Enter(Stage::kRolledBack).IgnoreError();
  if (journaled_ && !context_.journal.Remove(report_.migration_id, Role::kSource).ok()) return;
  if (may_ask) context_.control.Send(abort).IgnoreError();
  if (handed_over) context_.confirm(report_.migration_id);
}

}  // namespace ramferry
