// The command line of Ramferry.
#include <fcntl.h>
#include <unistd.h>

#include <functional>

#include "CLI/CLI.hpp"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/measure.h"
#include "cli/say.h"
#include "fmt/format.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace ramferry {
namespace {

// Flags that override the configuration: applied after it was read.
class Overrides {
 public:
  template <class Value>
  CLI::Option* Add(CLI::App* command, const std::string& flag, Value Settings::*field,
                   const std::string& help) {
    auto value = std::make_shared<Value>();
    CLI::Option* option = command->add_option(flag, *value, help);
    actions_.push_back([option, value, field](Settings& settings) {
      if (option->count() > 0) settings.*field = *value;
    });
    return option;
  }
  void AddFlag(CLI::App* command, const std::string& flag, bool Settings::*field,
               const std::string& help) {
    CLI::Option* option = command->add_flag(flag, help);
    actions_.push_back([option, field](Settings& settings) {
      if (option->count() > 0) settings.*field = true;
    });
  }
  void Apply(Settings& settings) const {
    for (const auto& action : actions_) action(settings);
  }

 private:
  std::vector<std::function<void(Settings&)>> actions_;
};

void AddIdentity(CLI::App* command, Overrides& overrides) {
  overrides.Add(command, "--ca", &Settings::ca, "certificate of the authority (PEM)");
  overrides.Add(command, "--cert", &Settings::certificate, "this host's certificate (PEM)");
  overrides.Add(command, "--key", &Settings::key, "this host's private key (PEM)");
  overrides.Add(command, "--revocation-list", &Settings::revocation_list,
                "certificates that count no more (PEM)");
  overrides.Add(command, "--state-dir", &Settings::state_dir, "directory of the journal");
}

void AddRdma(CLI::App* command, Overrides& overrides) {
  overrides.Add(command, "--pin-budget", &Settings::pin_budget_mib,
                "RDMA: guest memory pinned at a time, in MiB (0: all of it)");
  overrides.Add(command, "--rdma-address", &Settings::rdma_address,
                "RDMA: this host's address to use (by the way to the other host)");
  overrides.Add(command, "--traffic-class", &Settings::rdma_traffic_class,
                "RoCE: traffic class of this host's packets (the system's)");
  overrides.Add(command, "--service-level", &Settings::rdma_service_level,
                "RDMA: service level of this host's packets (the system's)");
}

void AddSeconds(CLI::App* command, int& seconds) {
  seconds = kUsualSeconds;
  command
      ->add_option("--seconds", seconds,
                   fmt::format("how long to measure the guest ({})", kUsualSeconds))
      ->check(CLI::Range(kLeastSeconds, kMostSeconds));
}

int Run(int argc, char** argv) {
  CLI::App app{"Ramferry: live migration of virtual machines at the speed of the fabric."};
  app.require_subcommand(1);
  app.set_version_flag("--version", "ramferry " RAMFERRY_VERSION);
  app.footer(
      "Exit codes: 0 done, 1 error before a guest was touched, 2 wrong usage, 3 refused (reasons\n"
      "printed), 4 failed and rolled back, 5 in doubt (ramferry status), 130 cancelled.");
  std::string config;
  app.add_option("-c,--config", config,
                 fmt::format("configuration file (default: {}, if it exists)", kDefaultConfig));
  app.fallthrough();
  Overrides overrides;
  std::function<int(const Settings&)> command;

  MigrateArguments migrate;
  CLI::App* migrating = app.add_subcommand("migrate", "Move a running guest to another host");
  migrating
      ->add_option("GUEST", migrate.guest, "qemu:PATH of its QMP socket, or xen:NAME of a domain")
      ->required();
  migrating->add_option("DESTINATION", migrate.destination, "HOST[:PORT] of a `ramferry receive`")
      ->required();
  migrating->add_option("--json", migrate.json, "write the report as JSON to this file");
  migrating->add_option("--server-name", migrate.server_name,
                        "what the destination's certificate must say (default: HOST)");
  overrides.Add(migrating, "--downtime", &Settings::downtime_ms,
                "stop the guest when its predicted downtime is at most this, in ms (300)");
  overrides.Add(migrating, "--max-rounds", &Settings::max_rounds,
                "pre-copy rounds before --if-not-converging decides (30)");
  overrides.Add(migrating, "--if-not-converging", &Settings::if_not_converging,
                "give-up (default), throttle (take CPU time from it), wait (until it writes less), "
                "or stop (for longer than --downtime)");
  overrides.Add(migrating, "--workers", &Settings::workers,
                "sending threads and connections (0: half of the CPUs)");
  overrides.Add(migrating, "--cpus", &Settings::cpus,
                "CPUs for the sending threads, as in 0-3,8 (by the NUMA rules)");
  overrides.Add(migrating, "--bandwidth", &Settings::bandwidth_mib,
                "limit in MiB/s while the guest runs (0: none)");
  overrides.Add(migrating, "--least-bandwidth", &Settings::least_bandwidth_mib,
                "begin at so many MiB/s and go as fast as the guest writes, up to --bandwidth (0: "
                "all at --bandwidth)");
  overrides.Add(migrating, "--data-encryption", &Settings::data_encryption,
                "auto, on or off; off: whoever sees the packets sees the guest's memory");
  overrides.Add(migrating, "--transport", &Settings::transport, "auto, rdma, dpdk or tcp");
  AddRdma(migrating, overrides);
  overrides.AddFlag(migrating, "--verify", &Settings::verify,
                    "compare all memory while the guest is stopped (longer downtime)");
  AddIdentity(migrating, overrides);
  migrating->callback([&] {
    command = [&migrate](const Settings& settings) { return MigrateCommand(migrate, settings); };
  });

  ReceiveArguments receive;
  CLI::App* receiving = app.add_subcommand("receive", "Take guests that come to this host");
  overrides.Add(receiving, "--listen", &Settings::listen, "address to listen on (every one)");
  overrides.Add(receiving, "--port", &Settings::port,
                fmt::format("control port ({}; 0: any free one)", kDefaultPort));
  overrides.Add(receiving, "--page-port", &Settings::page_port,
                "port for guest memory (0: any free one)");
  overrides.Add(receiving, "--guest", &Settings::guests, "guest definition; may be given again");
  overrides.Add(receiving, "--qmp", &Settings::qmp,
                "QMP socket of a QEMU started with -incoming defer -S");
  overrides.AddFlag(receiving, "--xen", &Settings::xen, "take Xen domains (in a dom0)");
  overrides.Add(receiving, "--allow", &Settings::allow,
                "certificate name of a host that may send; may be given again");
  overrides.Add(receiving, "--runtime-dir", &Settings::runtime_dir,
                "QMP sockets and logs of the QEMUs started here");
  overrides.Add(receiving, "--cpus", &Settings::cpus,
                "CPUs for the receiving threads, as in 0-3,8 (by the NUMA rules)");
  overrides.Add(receiving, "--numa-map", &Settings::numa_map,
                "guest NUMA nodes to nodes of this host, as in 0:1,1:0 (by the NUMA rules)");
  overrides.Add(receiving, "--data-encryption", &Settings::data_encryption, "auto, on or off");
  overrides.Add(receiving, "--transport", &Settings::transport, "auto, rdma, dpdk or tcp");
  AddRdma(receiving, overrides);
  receiving->add_flag("--once", receive.once, "end after one guest has come");
  AddIdentity(receiving, overrides);
  receiving->callback([&] {
    command = [&receive](const Settings& settings) { return ReceiveCommand(receive, settings); };
  });

  CheckArguments check;
  CLI::App* checking =
      app.add_subcommand("check", "Say what on this host, or in a guest, would refuse a migration");
  checking->add_option("GUEST", check.guest,
                       "qemu:PATH of its QMP socket, or xen:NAME of a domain");
  checking->add_option(
      "DESTINATION", check.destination,
      "HOST[:PORT] of a `ramferry receive`: asked whether it would take the guest");
  checking->add_option("--server-name", check.server_name,
                       "what the destination's certificate must say (default: HOST)");
  overrides.Add(checking, "--workers", &Settings::workers, "as for migrate");
  overrides.Add(checking, "--pin-budget", &Settings::pin_budget_mib, "as for migrate");
  AddIdentity(checking, overrides);
  checking->callback([&] {
    command = [&check](const Settings& settings) { return CheckCommand(check, settings); };
  });

  TopologyArguments topology;
  CLI::App* surveying = app.add_subcommand(
      "topology", "Draw this host's NUMA nodes, and where workers would go to move a guest");
  surveying->add_option("GUEST", topology.guest, "qemu:PATH of its QMP socket");
  surveying->add_option("--json", topology.json,
                        "write it as JSON to this file (-: standard output)");
  surveying->add_option("--svg", topology.svg,
                        "write it as a drawing to this file (-: standard output)");
  surveying->add_option("--to", topology.destination,
                        "address of a destination: only devices that lead there count");
  overrides.Add(surveying, "--workers", &Settings::workers, "as for migrate");
  overrides.Add(surveying, "--cpus", &Settings::cpus, "as for migrate");
  surveying->callback([&] {
    command = [&topology](const Settings& settings) { return TopologyCommand(topology, settings); };
  });

  WwsArguments wws;
  CLI::App* measuring = app.add_subcommand(
      "wws", "Measure a running guest's writable working set, without moving it");
  measuring->add_option("GUEST", wws.guest, "qemu:PATH of its QMP socket, or xen:NAME of a domain")
      ->required();
  AddSeconds(measuring, wws.seconds);
  measuring->add_option("--json", wws.json,
                        "write figures and trace as JSON to this file (-: standard output)");
  measuring->add_option("--svg", wws.svg, "draw them to this file (-: standard output)");
  measuring->add_option("--trace", wws.trace,
                        "write what `ramferry predict --trace` reads to this file");
  overrides.Add(measuring, "--state-dir", &Settings::state_dir, "directory of the journal");
  measuring->callback(
      [&] { command = [&wws](const Settings& settings) { return WwsCommand(wws, settings); }; });

  PredictArguments predict;
  CLI::App* predicting = app.add_subcommand(
      "predict", "Say what moving a guest would take: time, rounds, bytes, downtime");
  predicting->add_option("GUEST", predict.guest, "a guest of this host, which is measured first");
  predicting->add_option("--trace", predict.trace, "a recorded guest: file of `ramferry wws`");
  predicting->add_option("--synthetic", predict.synthetic,
                         "a guest made up: memory=1T,working-set=64G,rate=500000 (pages written a "
                         "second),pattern=uniform|sequential|hot|moving|bursty,contents=0.8");
  AddSeconds(predicting, predict.seconds);
  predict.link_gigabits = 10;
  predicting
      ->add_option("--link", predict.link_gigabits, "what the network carries, in Gbit/s (10)")
      ->check(CLI::Range(0.001, 100000.0));
  predicting->add_option("--json", predict.json,
                         "write it as JSON to this file (-: standard output)");
  predicting->add_option("--svg", predict.svg, "draw the guest's figures, as `ramferry wws` does");
  overrides.Add(predicting, "--downtime", &Settings::downtime_ms, "as for migrate");
  overrides.Add(predicting, "--max-rounds", &Settings::max_rounds, "as for migrate");
  overrides.Add(predicting, "--if-not-converging", &Settings::if_not_converging, "as for migrate");
  overrides.Add(predicting, "--workers", &Settings::workers, "as for migrate");
  overrides.Add(predicting, "--bandwidth", &Settings::bandwidth_mib, "as for migrate");
  overrides.Add(predicting, "--least-bandwidth", &Settings::least_bandwidth_mib, "as for migrate");
  overrides.Add(predicting, "--state-dir", &Settings::state_dir, "directory of the journal");
  predicting->callback([&] {
    command = [&predict](const Settings& settings) { return PredictCommand(predict, settings); };
  });

  CertsArguments certs;
  CLI::App* certifying = app.add_subcommand(
      "certs", "Make an authority and host certificates, for trying out and for small sites");
  certifying->add_option("DIRECTORY", certs.directory, "where to put them")->required();
  certifying->add_option("--host", certs.hosts,
                         "NAME or NAME=ADDRESS,NAME,...; may be given again (default: this host)");
  certifying
      ->add_option("--revoke", certs.revoked,
                   "put the certificate of this host on the list crl.pem there; may be given again")
      ->excludes("--host");
  certifying->add_flag("--overwrite", certs.overwrite, "replace what is there");
  certifying->callback(
      [&] { command = [&certs](const Settings&) { return CertsCommand(certs); }; });

  CLI::App* status = app.add_subcommand("status", "List migrations under way or unsettled here");
  AddIdentity(status, overrides);
  status->callback(
      [&] { command = [](const Settings& settings) { return StatusCommand(settings); }; });

  std::string resolved;
  bool run_here = false;
  bool discard_here = false;
  CLI::App* resolving =
      app.add_subcommand("resolve", "Settle a migration that was broken off (docs/handover.md)");
  resolving->add_option("ID", resolved, "migration id, or its beginning")->required();
  CLI::Option* here = resolving->add_flag(
      "--run-here", run_here, "you know that it does not, and will not, run on the other host");
  resolving->add_flag("--discard-here", discard_here, "you know that it runs on the other host")
      ->excludes(here);
  AddIdentity(resolving, overrides);
  resolving->callback([&] {
    command = [&](const Settings& settings) {
      return ResolveCommand(resolved,
                            run_here       ? Resolution::kRunHere
                            : discard_here ? Resolution::kDiscardHere
                                           : Resolution::kAsk,
                            settings);
    };
  });

  CLI::App* configuring = app.add_subcommand("config", "Print the configuration in force");
  configuring->callback([&] {
    command = [](const Settings& settings) {
      Say("{}", FormatSettings(settings));
      return static_cast<int>(kExitOk);
    };
  });

  DemoArguments demo;
  CLI::App* demonstrating =
      app.add_subcommand("demo", "Move a busy guest between two QEMUs on this machine");
  demonstrating->add_option("--json", demo.json, "write the report as JSON to this file");
  demonstrating->add_option("--guest-elf", demo.guest_elf, "the test guest");
  demonstrating->add_option("--memory-mib", demo.memory_mib, "the guest's memory (512)")
      ->check(CLI::Range(64, 3072));
  demonstrating->callback(
      [&] { command = [&demo](const Settings&) { return DemoCommand(demo); }; });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  const auto load = [&]() -> absl::StatusOr<Settings> {
    ASSIGN_OR_RETURN(Settings settings, LoadSettings(config));
    overrides.Apply(settings);
    RETURN_IF_ERROR(CheckSettings(settings));
    return settings;
  };
  receive.load = load;
  const auto settings = load();
  if (!settings.ok()) {
    Tell("ramferry: {}\n", Message(settings.status()));
    return kExitUsage;
  }
  return command(*settings);
}

}  // namespace
}  // namespace ramferry

int main(int argc, char** argv) {
  // Whoever starts us may have closed these. No connection, and no guest's memory, may get the
  // number that messages are written to.
  while (true) {
    const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd > STDERR_FILENO) ::close(fd);
    if (fd < 0 || fd > STDERR_FILENO) break;
  }
  return ramferry::Run(argc, argv);
}
