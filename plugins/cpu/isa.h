// SPDX-License-Identifier: Apache-2.0
// The instruction sets of the cpu backend, and how a device picks its functions: by a mask of its own, never by
// Highway's process-wide one, so that devices with different cpu.max_isa live side by side.
//
// A file with vector code is compiled once per instruction set (Highway's foreach_target) and looks like this:
//
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "cpu/sum.cpp"  // this file; every #include above it is outside the loop
//   #include "hwy/foreach_target.h"
//   #include "hwy/highway.h"
//   #include "cpu/hwy_compat.h"               // after highway.h: it is vector code too
//   HWY_BEFORE_NAMESPACE();
//   namespace chorus::cpu {
//   namespace HWY_NAMESPACE {
//   namespace hn = hwy::HWY_NAMESPACE;
//   float sum(const float *x, int64_t n) { … }
//   }  // namespace HWY_NAMESPACE
//   }  // namespace chorus::cpu
//   HWY_AFTER_NAMESPACE();
//   #if HWY_ONCE
//   namespace chorus::cpu {
//   HWY_EXPORT(sum);
//   … in prepare(): state->sum = CHORUS_CPU_PICK(device, sum);   in run(): state.sum(x, n)
//   }  // namespace chorus::cpu
//   #endif
//
// Results must not depend on the instruction set: no MulAdd (AVX2 fuses it, SSE4 does not), sums by 32 virtual lanes.
// Ne(x, x) is false for NaN on AVX2 in Highway 1.0.3: ask IsNaN(x).
#pragma once
#include <cstdint>

#include "hwy/targets.h"

namespace chorus::cpu {

// Ascending; the value is the position in the tables of isa.cpp. kSse2 is Highway's portable target compiled for the
// x86-64 baseline; elsewhere than on x86 it is whatever the compiler's baseline offers.
enum class Isa { kSse2, kSse4, kAvx2, kAvx512 };
inline constexpr int kIsaCount = 4;

const char *name_of(Isa isa);

// The best one this processor and its operating system have.
Isa best_isa();

// "auto" (the best there is) or the name of one, which is then an upper limit. False: neither.
bool parse_isa(const char *word, Isa *out);

// Lets `target` choose among the instruction sets of the processor up to `most`.
void choose(hwy::ChosenTarget *target, Isa most);

}  // namespace chorus::cpu

// The version of `function` (given to HWY_EXPORT in this file) for the instruction set of `device`.
#define CHORUS_CPU_PICK(device, function) (HWY_DISPATCH_TABLE(function)[(device)->target.GetIndex()])
