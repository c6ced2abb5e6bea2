// What a migration did: what the tables and the JSON file are made from.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/units.h"
#include "engine/stage.h"

namespace ramferry {

enum class Outcome {
  kMigrated,    // the guest runs on the destination
  kRolledBack,  // the guest runs here as before
  kInDoubt,     // the guest is stopped here until the destination, or a person, says who owns it
};
[[nodiscard]] const char* NameOf(Outcome outcome);

struct RoundReport {
  uint32_t number = 0;   // from 1; the last one is stop-and-copy
  bool stopped = false;  // the guest was stopped: stop-and-copy
  PageCount pages;       // sent with contents
  PageCount zero_pages;  // found zero: nothing sent, or a few bytes for a whole run
  ByteCount bytes;       // on the wire
  double ms = 0;
  double quiesced_ms = 0;   // of that: the guest stood still, for its dirty pages to be collected
  double idle_ms = 0;       // of that: nothing was sent, for hot pages to show themselves
  PageCount skipped_pages;  // not sent, as they were dirty again when their turn came
  PageCount dirty_pages;    // to be sent if the guest were stopped at its end
  PageCount held_pages;     // of these: too hot to be sent before that (policy/hot_pages.h)
  double dirty_rate = 0;    // pages a second, made dirty during the round
  ByteCount rate_limit;     // bytes a second; 0: none
  double cpu_share = 1;     // of its CPUs' time, left to the guest; 1: all of it
  double predicted_downtime_ms = 0;
  // From its end until the guest runs on the destination; 0: not predicted, as after a round of a
  // few milliseconds, or no end is in sight.
  double predicted_rest_ms = 0;
};

// A round that is under way.
struct RoundProgress {
  uint32_t number = 0;
  PageCount pages;  // sent with contents so far
  double ms = 0;    // since it began
  double done = 0;  // the part of it that is done, 0 to 1; of later rounds an estimate

  // Until its end; 0: too early to say.
  [[nodiscard]] double left_ms() const { return done > 0 ? ms * (1 - done) / done : 0; }
};

// The downtime by cause, in milliseconds; they add up to the downtime.
struct DowntimeParts {
  double pause = 0;         // from the guest's stop until we know of it
  double last_pages = 0;    // collecting and sending what was dirty
  double device_state = 0;  // what saving, carrying and loading it took longer than the pages
  double verify = 0;        // only when asked for
  double commit = 0;  // from the destination's "holding" to the ownership message, journal included
  double resume = 0;  // from there to the destination's word that it runs

  [[nodiscard]] double total() const {
    return pause + last_pages + device_state + verify + commit + resume;
  }
};

// Where a worker was.
struct WorkerReport {
  std::string cpus;      // bound to, as "0-3,8"
  int node = -1;         // of these CPUs; -1: any
  int memory_node = -1;  // of the memory that it began with; -1: none in particular
  std::string nic;       // planned for its channel; "": none in particular
  PageCount pages;       // that it sent with contents
  std::string why;
};

struct MigrationReport {
  Outcome outcome = Outcome::kRolledBack;
  Stage stage = Stage::kPreMigration;  // migrated: done; else the one in which it ended
  std::string error;                   // empty when migrated
  std::string migration_id;
  std::string guest;
  std::string destination;
  std::string transport;           // what the pages went over, e.g. "tcp"
  std::vector<std::string> paths;  // the ways its channels took, each once; empty: nothing to tell
  // What the devices of that transport on this host counted, by name; empty: they count nothing.
  std::vector<std::pair<std::string, uint64_t>> port_counters;
  bool encrypted = false;
  uint32_t workers = 0;
  std::vector<WorkerReport> placement;  // empty: nothing was placed, as on a host with one node
  double total_ms = 0;
  double downtime_ms = 0;
  DowntimeParts downtime_parts;
  double predicted_downtime_ms = 0;  // when the guest was stopped
  // After the first round, of total_ms; 0: it never came so far.
  double predicted_total_ms = 0;
  std::vector<RoundReport> rounds;
  ByteCount bytes_sent;  // on the wire, by the page channels
  ByteCount device_state_bytes;
  PageCount guest_pages;   // the guest's memory
  double cpu_seconds = 0;  // of this process
  // The same for each 10^9 bytes sent; 0 when nothing was.
  [[nodiscard]] double cpu_seconds_per_gb() const {
    return bytes_sent.value() > 0 ? cpu_seconds * 1e9 / static_cast<double>(bytes_sent.value()) : 0;
  }
  bool verified = false;  // the memory was compared, and equal
};

}  // namespace ramferry
