// SPDX-License-Identifier: Apache-2.0
// The rounding of a step of arithmetic in a 16-, 32- or 64-bit format, as PyTorch does it: computed in f32 (f64 for f64), then
// rounded to the format. Steps come in f64: their second rounding to f32 changes nothing (53 >= 2 * 24 + 2 bits, Figueroa 1995).
#pragma once
#include "chorus/types.h"
#include "runtime/dtype.h"

namespace chorus::merge {

class Rounding {
 public:
  Rounding() = default;  // none
  explicit Rounding(chorus_dtype work) : work_(work) {}

  bool is_active() const { return work_ != 0; }
  chorus_dtype work() const { return work_; }
  // A step's result.
  double operator()(double x) const {
    switch (work_) {
      case CHORUS_BF16: return static_cast<double>(bf16_to_f32(f32_to_bf16(static_cast<float>(x))));
      case CHORUS_F16: return static_cast<double>(f16_to_f32(f32_to_f16(static_cast<float>(x))));
      case CHORUS_F32: return static_cast<double>(static_cast<float>(x));
      default: return x;
    }
  }
  // A number beside the tensors, or a sum on its way: f32, f64 for f64.
  double scalar(double x) const { return work_ == 0 || work_ == CHORUS_F64 ? x : static_cast<double>(static_cast<float>(x)); }

 private:
  chorus_dtype work_ = 0;
};

}  // namespace chorus::merge
