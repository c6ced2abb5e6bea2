// absl::Status for what can fail in the field, with messages that a person can act on.
//
//   RETURN_IF_ERROR(guest.Pause());
//   ASSIGN_OR_RETURN(UniqueFd fd, OpenMemoryFile(path));
//   return ErrnoStatus(errno, fmt::format("cannot open guest memory file {}", path));
//
// The first function that decides something is an error says what happened, to which object, and
// what to do; callers pass it on as it is.
#pragma once

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ramferry {

// A status with the code that fits `error` (an errno value) and the message "WHAT: strerror".
inline absl::Status ErrnoStatus(int error, std::string_view what) {
  return absl::Status(absl::ErrnoToStatusCode(error),
                      std::string(what) + ": " + std::generic_category().message(error));
}

// The message alone, as the rest of the code likes its strings.
inline std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

// `status` with "CONTEXT: " before its message; OK stays OK.
inline absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), std::string(context) + ": " + Message(status));
}

}  // namespace ramferry

#define RAMFERRY_CONCAT_INNER(a, b) a##b
#define RAMFERRY_CONCAT(a, b) RAMFERRY_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR_INNER(status, expression)           \
  do {                                                      \
    if (absl::Status status = (expression); !status.ok()) { \
      return status;                                        \
    }                                                       \
  } while (false)

// The variable has the line in its name, so that an expression may hold a lambda that uses this
// too.
#define RETURN_IF_ERROR(expression) \
  RETURN_IF_ERROR_INNER(RAMFERRY_CONCAT(status_, __LINE__), expression)

#define ASSIGN_OR_RETURN_INNER(statusor, declaration, expression) \
  auto statusor = (expression);                                   \
  if (!statusor.ok()) return statusor.status();                   \
  declaration = *std::move(statusor)

#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_INNER(RAMFERRY_CONCAT(statusor_, __LINE__), declaration, expression)
