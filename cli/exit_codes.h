// The exit codes of `ramferry`, as docs/operating.md lists them.
#pragma once

namespace ramferry {

enum ExitCode : int {
  kExitOk = 0,           // done; for migrate: the guest runs on the destination
  kExitError = 1,        // something failed before a guest was touched
  kExitUsage = 2,        // the command line or the configuration is wrong
  kExitRefused = 3,      // the guest cannot be moved as it is: the reasons were printed
  kExitRolledBack = 4,   // the migration failed; the guest is on the source, as before
  kExitInDoubt = 5,      // the guest is paused on the source until it is known who owns it
  kExitCancelled = 130,  // interrupted; the guest is on the source, as before
};

}  // namespace ramferry
