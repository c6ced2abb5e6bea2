#include "hypervisor-glue/qemu/cpu_features.h"

#include <charconv>
#include <cstdint>
#include <map>
#include <sstream>
#include <string_view>

#include "fmt/format.h"
#include "hypervisor-glue/qemu/qmp_json.h"

namespace ramferry {
namespace {

// "7.0.EBX=9c0" -> {"7.0.EBX", 0x9c0}
bool Split(const std::string& word, std::string& name, uint64_t& bits) {
  const size_t at = word.find('=');
  if (at == std::string::npos) return false;
  name = word.substr(0, at);
  const char* const end = word.data() + word.size();
  const auto [last, error] = std::from_chars(word.data() + at + 1, end, bits, 16);
  return error == std::errc() && last == end;
}

}  // namespace

std::string CpuFeatures(const nlohmann::json& feature_words) {
  std::map<std::string, uint64_t> words;  // in one order, whatever QEMU's
  for (const nlohmann::json& word : feature_words) {
    const std::string name = Field<std::string>(word, "cpuid-register");
    const auto bits = Field<uint64_t>(word, "features");
    if (name.empty() || name.size() > 8 || bits == 0) continue;
    words[fmt::format("{:x}.{:x}.{}", Field<uint32_t>(word, "cpuid-input-eax"),
                      Field<uint32_t>(word, "cpuid-input-ecx"), name)] = bits;
  }
  std::string text;
  for (const auto& [name, bits] : words) {
    text += fmt::format("{}{}={:x}", text.empty() ? "" : ";", name, bits);
  }
  return text;
}

std::string MissingCpuFeatures(const std::string& wanted, const std::string& here) {
  if (wanted.empty() || here.empty()) return "";
  std::map<std::string, uint64_t> has;
  std::string name;
  uint64_t bits = 0;
  std::istringstream own(here);
  for (std::string word; std::getline(own, word, ';');) {
    if (Split(word, name, bits)) has[name] = bits;
  }
  std::string missing;
  std::istringstream list(wanted);
  for (std::string word; std::getline(list, word, ';');) {
    const bool readable = Split(word, name, bits);
    const auto found = has.find(name);
    const uint64_t lacks = bits & ~(found == has.end() ? 0 : found->second);
    if (readable && lacks == 0) continue;
    missing += missing.empty() ? "" : ";";
    missing += readable ? fmt::format("{}={:x}", name, lacks) : word;
  }
  return missing;
}

}  // namespace ramferry
