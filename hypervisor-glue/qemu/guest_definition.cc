#include "hypervisor-glue/qemu/guest_definition.h"

#include <algorithm>
#include <array>

#include "base/status.h"
#include "base/text_file.h"
#include "fmt/format.h"
#include "toml++/toml.h"

namespace ramferry {
namespace {

absl::Status Wrong(const std::string& origin, const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("guest definition {}: {}", origin, what));
}

absl::StatusOr<GuestDefinition> FromTable(const toml::table& table, const std::string& origin) {
  GuestDefinition definition;
  for (const auto& [key, value] : table) {
    const std::string name(key.str());
    if (name == "argv") {
      const toml::array* list = value.as_array();
      if (list == nullptr) return Wrong(origin, "argv must be a list of strings");
      for (const toml::node& word : *list) {
        if (!word.is_string()) return Wrong(origin, "argv must be a list of strings");
        definition.argv.push_back(word.as_string()->get());
      }
      continue;
    }
    std::string* field = name == "name"  ? &definition.name
                         : name == "log" ? &definition.log
                         : name == "qmp" ? &definition.qmp
                                         : nullptr;
    if (field == nullptr) {
      return Wrong(origin, fmt::format("unknown key '{}' (known: name, argv, log, qmp)", name));
    }
    if (!value.is_string()) return Wrong(origin, fmt::format("{} must be a string", name));
    *field = value.as_string()->get();
  }
  return definition;
}

}  // namespace

absl::StatusOr<GuestDefinition> ParseGuestDefinition(std::string_view text,
                                                     const std::string& origin) {
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    return Wrong(origin, fmt::format("line {}: {}", error.source().begin.line,
                                     std::string(error.description())));
  }
  ASSIGN_OR_RETURN(GuestDefinition definition, FromTable(table, origin));
  if (definition.name.empty()) return Wrong(origin, "name is missing: the guest's -name");
  if (definition.name.find_first_of("/\n") != std::string::npos || definition.name.size() > 64) {
    return Wrong(origin, "name must have at most 64 characters and no '/'");
  }
  if (definition.argv.empty()) {
    return Wrong(origin, "argv is missing: the QEMU command line as a list of strings");
  }
  // Another ramferry, of another directory, must find them again.
  for (const std::string& file : {definition.qmp, definition.log}) {
    if (!file.empty() && file[0] != '/') {
      return Wrong(origin, fmt::format("'{}' must begin with '/'", file));
    }
  }
  constexpr std::array kOurs = {"-incoming", "-S", "-daemonize", "--incoming", "--daemonize"};
  for (const std::string& word : definition.argv) {
    if (std::find(kOurs.begin(), kOurs.end(), word) != kOurs.end()) {
      return Wrong(origin, fmt::format("take {} out of argv: Ramferry adds what it needs", word));
    }
  }
  return definition;
}

absl::StatusOr<GuestDefinition> LoadGuestDefinition(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, "the guest definition"));
  return ParseGuestDefinition(text, path);
}

}  // namespace ramferry
