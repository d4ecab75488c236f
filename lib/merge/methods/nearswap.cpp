// SPDX-License-Identifier: Apache-2.0
// nearswap: the base a where it differs much from the other model b, b where they are near: y = w b + (1 - w) a, w = t / |a - b| within
// 0 and 1. alchemonaut's, as in mergekit: |a - b| counts as at least 1e-6.
#include <algorithm>
#include <cmath>

#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

constexpr double kNear = 1e-6;

// With rounding: the quotient is a reciprocal times t, as PyTorch computes number / tensor.
double element(double a, double b, double t, const Rounding &r) {
  const double gap = std::max(r(std::abs(r(a - b))), r(kNear));
  const double quotient = r.is_active() ? r(r(1 / gap) * r.scalar(t)) : t / gap;
  const double w = quotient > 0 ? std::min(quotient, 1.0) : 0.0;
  return r(r(w * b) + r(r(1 - w) * a));
}

Program program(const Settings &settings) {
  const double t = settings.number("t");
  Program out;
  out.coefficients.weights = {1};
  out.element = [t, r = settings.rounding()](const ElementBlock &block) {
    for (size_t i = 0; i < block.count; ++i) block.out[i] = element(block.base[i], block.inputs[0][i], t, r);
  };
  return out;
}

}  // namespace

Method nearswap_method() {
  return {"nearswap",
          "the base, drawn to the other model where the two are near",
          BaseUse::kRequired,
          1,
          1,
          {{"t", ParameterType::kNumber, false, true, 0, -kInfinity, kInfinity, "difference up to which the other model's element is taken"}},
          program};
}

}  // namespace chorus::merge
