// SPDX-License-Identifier: Apache-2.0
// What several methods share: parameters, the stages of deltas, keys of random numbers, the L1 rescale.
#include <xxhash.h>

#include <numeric>

#include "merge/methods/table.h"
#include "runtime/checked.h"
#include "runtime/error.h"

namespace chorus::merge {
namespace {

// Below this a sum of magnitudes is nothing to divide by, as in mergekit.
constexpr double kSmallSum = 1e-7;
// Below this the models' mean squares are no measure, as in mergekit.
constexpr double kSmallEnergy = 1e-6;
constexpr double kLargestF16 = 65504;

// Mean squares to weights; all alike when there is next to none.
void share_energy(const Statistic &s, const Rounding &r, Coefficients *c) {
  const auto energy = [&](size_t i) { return r(s.gram(i, i) / static_cast<double>(s.elements)); };
  double sum = 0;
  for (size_t i = 0; i < s.n; ++i) sum = r.scalar(sum + energy(i));
  sum = r(sum);
  for (size_t i = 0; i < s.n; ++i) c->weights[i] = r(sum < kSmallEnergy ? 1.0 / static_cast<double>(s.n) : energy(i) / sum);
}

// mergekit sums in the tensors' format where it trims, in f32 for f16 where it draws; a sum that f16 cannot hold stays in f32 here.
Rounding rounding_of_sums(const Rounding &rounding, bool drawn, double largest) {
  const bool wide = rounding.work() == CHORUS_F16 && (drawn || largest > kLargestF16);
  return wide ? Rounding(CHORUS_F32) : rounding;
}

}  // namespace

uint64_t Settings::elements() const { return checked_elements(shape_).value_or(0); }

std::vector<uint64_t> Settings::keys() const {
  std::vector<uint64_t> out;
  for (size_t i = 0; i < n_inputs_; ++i) out.push_back(XXH3_64bits_withSeed(tensor_.data(), tensor_.size(), seed_ * 0x9E3779B97F4A7C15u + i));
  return out;
}

Parameter weight_parameter() {
  return {"weight", ParameterType::kNumber, true, true, 0, -kInfinity, kInfinity, "weight of the model; 0: it is not read"};
}

Parameter normalize_parameter(bool fallback) {
  return {"normalize", ParameterType::kBoolean, false, false, fallback ? 1.0 : 0.0, 0, 1, "divide by the sum of the weights"};
}

void check_sum(std::span<const double> weights) {
  if (std::accumulate(weights.begin(), weights.end(), 0.0) != 0.0) return;
  fail(CHORUS_INVALID_ARGUMENT, "the weights are [{}], which sum to 0; normalised they are nothing. Set normalize: false, or other weights",
       fmt::join(weights, ", "));
}

Program delta_program(const Settings &settings, bool consensus) {
  Program out;
  out.stages.operand = consensus ? CHORUS_OPERAND_WEIGHTED_DELTA : CHORUS_OPERAND_DELTA;
  out.stages.consensus = consensus ? CHORUS_CONSENSUS_SIGN : CHORUS_CONSENSUS_NONE;
  out.stages.add_base = true;
  out.coefficients.weights = settings.per_model("weight");
  out.coefficients.lambda = settings.number("lambda");
  if (settings.flag("normalize") && consensus) out.stages.combine = CHORUS_MERGE_MEAN_OF_KEPT;
  if (settings.flag("normalize") && !consensus) {
    check_sum(out.coefficients.weights);
    out.stages.combine = CHORUS_MERGE_MEAN;
  }
  return out;
}

chorus_merge_operand selecting_operand(const Stages &stages) {
  return stages.operand == CHORUS_OPERAND_X ? CHORUS_OPERAND_X : CHORUS_OPERAND_DELTA;
}

void weigh_by_energy(const Settings &settings, Program *program) {
  program->coefficients.weights.assign(settings.n_inputs(), 1);
  Reduction energy;
  energy.operand = CHORUS_OPERAND_DELTA;
  energy.sparsify = program->stages.sparsify;
  if (energy.sparsify != CHORUS_SPARSIFY_NONE) energy.predicate = CHORUS_PREDICATE_KEPT;
  program->passes.push_back({energy, [r = settings.rounding()](const Statistic &s, Coefficients *c) { share_energy(s, r, c); }});
}

void add_l1_rescale(const Settings &settings, Program *program) {
  const bool drawn = program->stages.sparsify == CHORUS_SPARSIFY_BERNOULLI || program->stages.sparsify == CHORUS_SPARSIFY_RANK;
  program->stages.rescale = CHORUS_RESCALE_L1;
  Reduction sum;
  sum.operand = selecting_operand(program->stages);
  sum.statistic = CHORUS_STATISTIC_SUM;
  sum.granularity = program->stages.granularity;
  program->passes.push_back({sum, [](const Statistic &all, Coefficients *c) { c->rescales = all.sums; }});
  sum.predicate = CHORUS_PREDICATE_KEPT;
  sum.sparsify = program->stages.sparsify;
  program->passes.push_back({sum, [drawn, rounding = settings.rounding()](const Statistic &kept, Coefficients *c) {
                               for (size_t i = 0; i < kept.n; ++i) {
                                 const Rounding r = rounding_of_sums(rounding, drawn, c->rescales[i]);
                                 const double before = r(c->rescales[i]), after = r(kept.sums[i]);
                                 c->rescales[i] = before >= kSmallSum && after >= kSmallSum ? r(before / after) : 1.0;
                               }
                             }});
}

}  // namespace chorus::merge
