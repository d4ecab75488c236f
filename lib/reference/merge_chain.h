// SPDX-License-Identifier: Apache-2.0
// NUMERICS_MERGEKIT: the rounding of every step to a work format, in f32 (f64 for f64) between (docs/numerics.md, "mergekit numerics").
// With accurate numerics nothing is rounded. Steps come in f64: their second rounding to f32 changes nothing for +, -, *, / of
// f32 operands (53 >= 2 * 24 + 2 bits, Figueroa 1995).
#pragma once
#include "chorus/plugin_merge.hpp"
#include "reference/backend.h"

namespace chorus::reference {

class Chain {
 public:
  template <typename Desc>
  explicit Chain(const Desc &d) : work_(d.numerics == CHORUS_NUMERICS_MERGEKIT ? d.work_dtype : 0) {}

  bool is_active() const { return work_ != 0; }
  // The result of a step.
  double round(double x) const {
    switch (work_) {
      case CHORUS_BF16: return static_cast<double>(f32_from_bf16(bf16_from_f32(static_cast<float>(x))));
      case CHORUS_F16: return static_cast<double>(f32_from_f16(f16_from_f32(static_cast<float>(x))));
      case CHORUS_F32: return static_cast<double>(static_cast<float>(x));
      default: return x;
    }
  }
  // An accumulator, or a number beside the tensors.
  double wide(double x) const { return work_ == 0 || work_ == CHORUS_F64 ? x : static_cast<double>(static_cast<float>(x)); }
  double fused(double x, double y, double z) const {
    if (work_ == CHORUS_F64) return std::fma(x, y, z);
    return static_cast<double>(std::fma(static_cast<float>(x), static_cast<float>(y), static_cast<float>(z)));
  }

  // Probabilities of the random stages: in bf16, where the tensors are; else in f32.
  double probability(double p) const { return work_ == CHORUS_BF16 ? round(p) : wide(p); }
  // Of the element of rank `rank` among `size`: ranks from 1, their range and the result in that format.
  double rank_probability(double density, double epsilon, uint64_t rank, uint64_t size) const {
    if (!is_active() || size < 2) return plugin::rank_probability(density, epsilon, rank, size);
    const double place = probability(static_cast<double>(rank + 1)), last = probability(static_cast<double>(size));
    const double share = probability(probability(place - 1.0) / probability(last - 1.0));
    return probability(wide(density - epsilon) + probability(probability(share * 2.0) * wide(epsilon)));
  }

 private:
  chorus_dtype work_;
};

}  // namespace chorus::reference
