// SPDX-License-Identifier: Apache-2.0
// Instruction sets by name, and their Highway targets: see isa.h.
#include "cpu/isa.h"

#include <cstring>

#include "hwy/detect_targets.h"

namespace chorus::cpu {
namespace {

const char *const kNames[kIsaCount] = {"sse2", "sse4", "avx2", "avx512"};

// Highway targets that an instruction set brings with it. The portable one is always there and has no bit to take away.
constexpr int64_t kTargets[kIsaCount] = {0, HWY_SSE4, HWY_AVX2, HWY_AVX3};

}  // namespace

const char *name_of(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa best_isa() {
  const int64_t supported = hwy::SupportedTargets();
  for (int i = kIsaCount - 1; i > 0; --i) {
    if ((supported & kTargets[i]) != 0) return static_cast<Isa>(i);
  }
  return Isa::kSse2;
}

bool parse_isa(const char *word, Isa *out) {
  const Isa best = best_isa();
  if (word == nullptr || std::strcmp(word, "auto") == 0) {
    *out = best;
    return true;
  }
  for (int i = 0; i < kIsaCount; ++i) {
    if (std::strcmp(word, kNames[i]) != 0) continue;
    *out = static_cast<Isa>(i) < best ? static_cast<Isa>(i) : best;
    return true;
  }
  return false;
}

void choose(hwy::ChosenTarget *target, Isa most) {
  int64_t allowed = 0;
  for (int i = 0; i <= static_cast<int>(most); ++i) allowed |= kTargets[i];
  target->Update(hwy::SupportedTargets() & allowed);
}

}  // namespace chorus::cpu
