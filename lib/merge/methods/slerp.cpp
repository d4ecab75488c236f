// SPDX-License-Identifier: Apache-2.0
// slerp: the tensors as two vectors, y on the arc between them: y = [sin((1-t)θ) a + sin(tθ) b] / sin θ, with cos θ from the Gram.
// Shoemake 1985. Nearly (anti)parallel vectors, |cos θ| > 0.9995, and vectors of norm at most 1e-8 are treated as in
// mergekit: the straight line, and a norm that is left as it is.
#include <algorithm>
#include <cmath>

#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

constexpr double kStraight = 0.9995, kSmallNorm = 1e-8;

double length_or_one(double square) {
  const double length = std::sqrt(square);
  return length > kSmallNorm ? length : 1.0;
}

// The coefficients are f32 in mergekit, whatever the tensors.
std::vector<double> on_the_arc(const Statistic &s, double t, const Rounding &r) {
  const double cosine = std::clamp(s.gram(0, 1) / length_or_one(s.gram(0, 0)) / length_or_one(s.gram(1, 1)), -1.0, 1.0);
  if (std::abs(cosine) > kStraight) return {r.scalar(1 - t), t};
  const double angle = r.scalar(std::acos(r.scalar(cosine))), sine = r.scalar(std::sin(angle));
  const auto coefficient = [&](double share) { return r.scalar(std::sin(r.scalar(share * angle))) / sine; };
  return {coefficient(r.scalar(1 - t)), coefficient(t)};
}

Program program(const Settings &settings) {
  const Rounding r = settings.rounding();
  const double t = r.scalar(settings.number("t"));
  Program out;
  out.stages.combine = CHORUS_MERGE_COEFFICIENTS;
  out.coefficients.weights = {1 - t, t};
  if (t == 0 || t == 1) return out;  // an end of the arc needs no angle
  out.passes.push_back({Reduction{}, [t, r](const Statistic &gram, Coefficients *c) { c->weights = on_the_arc(gram, t, r); }});
  return out;
}

}  // namespace

Method slerp_method() {
  return {"slerp",
          "spherical interpolation between two models; t = 0 is the base",
          BaseUse::kFirstInput,
          2,
          2,
          {{"t", ParameterType::kNumber, false, true, 0, -kInfinity, kInfinity, "place on the arc from the base (0) to the other model (1)"}},
          program};
}

}  // namespace chorus::merge
