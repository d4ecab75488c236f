// SPDX-License-Identifier: Apache-2.0
// What the kernels of the cpu backend share: the device and the table of kernels; the rest is plugin.hpp and isa.h.
#pragma once
#include "chorus/plugin.hpp"
#include "cpu/isa.h"

namespace chorus::cpu {

// Which experts oneDNN multiplies: option cpu.experts_gemm.
enum class GemmUse {
  kAuto,    // those with many rows, where oneDNN has bf16 arithmetic and the weights are bf16
  kNever,
  kAlways,  // all, in f32 where oneDNN has no bf16 arithmetic: what tests ask for
};
bool parse_gemm_use(const char *word, GemmUse *out);

}  // namespace chorus::cpu

struct chorus_plugin_device {
  const chorus_host *host;
  hwy::ChosenTarget target;  // picks the functions of its instruction set: CHORUS_CPU_PICK
  chorus::cpu::GemmUse experts_gemm;
};

namespace chorus::cpu {

using namespace chorus::plugin;

// Offered by plugin.cpp; one per operation, defined in the file of its name.
extern const chorus_kernel kCombineRows;
extern const chorus_kernel kMergeReduce;
extern const chorus_kernel kMergeApply;
extern const chorus_kernel kRouteTopk;
extern const chorus_kernel kExpertsFfn;
extern const chorus_kernel kSparseGemv;
extern const chorus_kernel kSparseFfn;

// Above the reference's 1, and room for a second kernel of the same operation that is better at some descriptors.
inline constexpr int32_t kScore = 100;

}  // namespace chorus::cpu
