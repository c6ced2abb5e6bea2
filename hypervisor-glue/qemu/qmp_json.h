// Reads fields of QEMU's answers without exceptions: a missing or mistyped field is the fallback.
#pragma once

#include <string>
#include <type_traits>

#include "nlohmann/json.hpp"

namespace ramferry {

// T: bool, std::string, nlohmann::json or an integer type.
template <class T>
[[nodiscard]] T Field(const nlohmann::json& object, const char* key, T fallback = {}) {
  if (!object.is_object()) return fallback;
  const auto found = object.find(key);
  if (found == object.end()) return fallback;
  if constexpr (std::is_same_v<T, bool>) {
    return found->is_boolean() ? found->template get<bool>() : fallback;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return found->is_string() ? found->template get<std::string>() : fallback;
  } else if constexpr (std::is_same_v<T, nlohmann::json>) {
    return *found;
  } else {
    return found->is_number_integer() ? found->template get<T>() : fallback;
  }
}

}  // namespace ramferry
