// The destination of `ramferry receive` and `ramferry demo`: control server, page listeners,
// guests.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "base/deadline.h"
#include "cli/settings.h"
#include "engine/destination_migration.h"
#include "engine/journal.h"
#include "engine/records.h"
#include "hypervisor-glue/guest.h"
#include "transport/control/server.h"

namespace ramferry {

class Receiver : public ControlService {
 public:
  // Listens and takes guests until it is destroyed. What a killed predecessor left is settled
  // first.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<Receiver>> Start(
      const Settings& settings, DestinationObserver& observer);
  ~Receiver() override;

  [[nodiscard]] uint16_t port() const { return server_->port(); }
  // Takes over who may send guests and which guests may come; what is under way goes on. Nothing
  // changes where that is wrong. Thread-safe.
  [[nodiscard]] absl::Status Reload(const Settings& settings);
  // Waits until every source has heard, and confirmed, that its guest runs here. After a deadline
  // the journal goes on remembering it, so nothing is lost.
  void AwaitConfirmations(Deadline deadline);
  // Gives up what is still on its way, waits for the rest.
  [[nodiscard]] absl::Status Stop(Deadline deadline);

  void Serve(ControlChannel& channel) override;
  absl::StatusOr<Verdict> Settle(const std::string& migration_id,
                                 const std::string& peer_name) override;
  absl::Status Confirm(const std::string& migration_id, const std::string& peer_name) override;

 private:
  Receiver(const Settings& settings, Journal journal, std::shared_ptr<DestinationHost> host,
           DestinationObserver& observer)
      : settings_(settings),
        journal_(std::move(journal)),
        records_(journal_),
        host_(std::move(host)),
        observer_(observer) {}
  [[nodiscard]] absl::Status Listen(const Settings& settings);
  void SettleLeftovers();
  void SettleLeftover(const JournalEntry& entry);

  const Settings settings_;
  const Journal journal_;
  Records records_;
  std::mutex host_mutex_;
  std::shared_ptr<DestinationHost> host_;  // guarded by host_mutex_
  DestinationObserver& observer_;
  Cancellation cancel_;
  std::atomic<int> serving_{0};  // migrations under way
  std::vector<std::unique_ptr<ChannelListener>> listeners_;
  std::unique_ptr<ControlServer> server_;
};

}  // namespace ramferry
