// gRPC's own log lines, which are for its developers, go to Ramferry's log at level debug.
#pragma once

namespace ramferry {

// Idempotent and thread-safe. Errors that matter to a person are reported by the caller's status.
void RedirectGrpcLog();

}  // namespace ramferry
