// The commands of `ramferry`, each in a file of its own. They print what a person should see and
// return an exit code (exit_codes.h).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/settings.h"

namespace ramferry {

struct MigrateArguments {
  std::string guest;        // "qemu:PATH", the path of a QMP socket, or "xen:NAME"
  std::string destination;  // HOST[:PORT]
  std::string json;         // file for the report; empty: none
  std::string server_name;  // what the destination's certificate must say; empty: the host named
};
int MigrateCommand(const MigrateArguments& arguments, const Settings& settings);

struct ReceiveArguments {
  bool once = false;  // end after one guest has come
  // The settings as they are now, flags included; may be called at any time.
  std::function<absl::StatusOr<Settings>()> load;
};
int ReceiveCommand(const ReceiveArguments& arguments, const Settings& settings);

// Host, and guest if one is given: everything that would refuse a migration.
struct CheckArguments {
  std::string guest;        // as for migrate; empty: only this host
  std::string destination;  // HOST[:PORT]; empty: not asked
  std::string server_name;  // as for migrate
};
int CheckCommand(const CheckArguments& arguments, const Settings& settings);

struct TopologyArguments {
  std::string guest;  // empty: only the host
  std::string json;   // files; empty: none; "-": standard output, and no text
  std::string svg;
  std::string destination;  // HOST; empty: all network devices count
};
int TopologyCommand(const TopologyArguments& arguments, const Settings& settings);

struct WwsArguments {
  std::string guest;
  int seconds = 0;
  std::string json;  // files; empty: none; "-": standard output, and no text
  std::string svg;
  std::string trace;
};
int WwsCommand(const WwsArguments& arguments, const Settings& settings);

// One of guest, trace and synthetic.
struct PredictArguments {
  std::string guest;      // measured for `seconds`
  std::string trace;      // file that `ramferry wws --trace` wrote
  std::string synthetic;  // as ParseSyntheticWorkload
  int seconds = 0;
  double link_gigabits = 0;
  std::string json;  // as of WwsArguments
  std::string svg;
};
int PredictCommand(const PredictArguments& arguments, const Settings& settings);

struct CertsArguments {
  std::string directory;
  std::vector<std::string> hosts;    // "NAME" or "NAME=ADDRESS,ADDRESS"
  std::vector<std::string> revoked;  // host names
  bool overwrite = false;
};
int CertsCommand(const CertsArguments& arguments);

int StatusCommand(const Settings& settings);

enum class Resolution {
  kAsk,          // ask the other host
  kRunHere,      // a person knows that the guest does not run there
  kDiscardHere,  // a person knows that it does
};
int ResolveCommand(const std::string& migration_id, Resolution resolution,
                   const Settings& settings);

struct DemoArguments {
  std::string json;
  std::string guest_elf;  // the test guest; empty: the one of the build this program is of
  int memory_mib = 512;
};
int DemoCommand(const DemoArguments& arguments);

}  // namespace ramferry
