// What a guest's processor can do, by CPUID, so that no guest comes to one that can do less: it has
// long decided what to use, and would die of an instruction that is not there.
//
// They travel in GuestDescription::blueprint, a JSON object, as "cpu_features".
#pragma once

#include <string>

#include "nlohmann/json.hpp"

namespace ramferry {

// QEMU's answer for the property `feature-words` of an x86 CPU (target/i386/cpu.c,
// X86CPUFeatureWordInfo) as text that both hosts write alike: "7.0.EBX=9c0;d.1.EAX=f", leaf,
// subleaf and bits in hexadecimal, words without a bit left out. "" for any other answer.
[[nodiscard]] std::string CpuFeatures(const nlohmann::json& feature_words);

// The bits of `wanted` that `here` lacks, in the same form; "" if none does, or if either is not
// known (""). Words that cannot be read are missing.
[[nodiscard]] std::string MissingCpuFeatures(const std::string& wanted, const std::string& here);

}  // namespace ramferry
