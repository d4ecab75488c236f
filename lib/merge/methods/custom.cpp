// SPDX-License-Identifier: Apache-2.0
// custom: the stages of merge.apply as the recipe names them (docs/merging.md, "Stages of one's own"). Every choice is a parameter, so it may
// differ by tensor and depth. Spelled like a named method it is that method, byte for byte: both build the same program.
#include "merge/methods/table.h"
#include "runtime/error.h"

namespace chorus::merge {
namespace {

// In the order of the constants of plugin.h.
const std::vector<const char *> kOperands = {"x", "delta", "weighted_delta"}, kGranularities = {"tensor", "row"},
                                kSparsifiers = {"none", "magnitude", "band", "bernoulli", "rank", "variance"},
                                kRescales = {"none", "l1", "inverse_density"}, kConsensuses = {"none", "sign"},
                                kCombines = {"sum", "mean", "mean_of_kept"}, kWeights = {"given", "energy"};

// A choice of stage, or what holds when the recipe makes none.
int32_t choice(const Settings &settings, const char *name, int32_t otherwise) {
  const double value = settings.number(name);
  return is_unset(value) ? otherwise : static_cast<int32_t>(value);
}

chorus_merge_operand operand_of(const Settings &settings) {
  const int32_t operand = choice(settings, "operand", settings.has_base() ? CHORUS_OPERAND_DELTA : CHORUS_OPERAND_X);
  if (operand != CHORUS_OPERAND_X && !settings.has_base()) {
    fail(CHORUS_INVALID_ARGUMENT, "operand is {}, which is taken from base_model; the recipe has none", kOperands[static_cast<size_t>(operand)]);
  }
  return operand;
}

// `normalize` is mergekit's word: divide by the weights of what is kept under consensus, else by all.
chorus_merge_combine combine_of(const Settings &settings, chorus_merge_consensus consensus) {
  const bool both = !is_unset(settings.number("combine")) && !is_unset(settings.number("normalize"));
  if (both) fail(CHORUS_INVALID_ARGUMENT, "combine and normalize are both given; combine says how to divide, leave normalize out");
  const bool normalize = choice(settings, "normalize", 0) != 0;
  const int32_t mean = consensus == CHORUS_CONSENSUS_SIGN ? CHORUS_MERGE_MEAN_OF_KEPT : CHORUS_MERGE_MEAN;
  return choice(settings, "combine", normalize ? mean : CHORUS_MERGE_SUM);
}

bool add_sparsify(const Settings &settings, chorus_merge_sparsify sparsify, Program *out) {
  switch (sparsify) {
    case CHORUS_SPARSIFY_MAGNITUDE_CUT:
      return cut_magnitudes(settings, out);
    case CHORUS_SPARSIFY_BAND:
      return cut_band(settings, out);
    case CHORUS_SPARSIFY_BERNOULLI:
      return thin(settings, out);
    case CHORUS_SPARSIFY_RANK:
      return thin_by_rank(settings, out);
    case CHORUS_SPARSIFY_STATISTIC_CUT:
      return keep_varying(settings, out);
    default:
      return false;
  }
}

// The groups in which magnitudes are ranked are all that differs by row; other stages are of the whole tensor.
void check_granularity(const Settings &settings, const Stages &stages) {
  const int32_t asked = choice(settings, "granularity", stages.granularity);
  if (asked == stages.granularity) return;
  fail(CHORUS_UNIMPLEMENTED, "granularity is {}; with sparsify: {} it is {} (rank works by row, all else by tensor)",
       kGranularities[static_cast<size_t>(asked)], kSparsifiers[static_cast<size_t>(stages.sparsify)],
       kGranularities[static_cast<size_t>(stages.granularity)]);
}

void add_rescale(const Settings &settings, chorus_merge_rescale rescale, Program *out) {
  if (rescale == CHORUS_RESCALE_L1 && out->stages.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT) {
    fail(CHORUS_UNIMPLEMENTED, "rescale is l1 with sparsify: variance; the sums of what a variance keeps are not implemented yet");
  }
  if (rescale == CHORUS_RESCALE_L1) add_l1_rescale(settings, out);
  if (rescale != CHORUS_RESCALE_INVERSE_DENSITY) return;
  if (out->stages.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT) {
    fail(CHORUS_INVALID_ARGUMENT, "rescale is inverse_density with sparsify: variance, which has no density; none is allowed");
  }
  out->stages.rescale = rescale;
  out->coefficients.densities = settings.per_model("density");
}

void add_weights(const Settings &settings, Program *out) {
  const std::vector<double> &weights = settings.per_model("weight");
  const bool energy = choice(settings, "weights", 0) != 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (is_unset(weights[i]) == energy) continue;
    if (energy) fail(CHORUS_INVALID_ARGUMENT, "input {} has weight {} and weights is energy, which finds them; leave one out", i, weights[i]);
    fail(CHORUS_INVALID_ARGUMENT, "no weight is given for input {}; give one, or weights: energy", i);
  }
  if (!energy) {
    if (out->stages.combine == CHORUS_MERGE_MEAN) check_sum(weights);
    out->coefficients.weights = weights;
    return;
  }
  if (out->stages.operand == CHORUS_OPERAND_X) {
    fail(CHORUS_INVALID_ARGUMENT, "weights is energy, which is of deltas; operand is x");
  }
  const bool by_row = out->stages.granularity == CHORUS_PER_ROW;
  if (by_row) fail(CHORUS_UNIMPLEMENTED, "weights is energy with sparsify: rank; the energy of what a rank keeps is not implemented yet");
  weigh_by_energy(settings, out);
}

Program program(const Settings &settings) {
  Program out;
  Stages &stages = out.stages;
  stages.operand = operand_of(settings);
  stages.consensus = choice(settings, "consensus", CHORUS_CONSENSUS_NONE);
  stages.combine = combine_of(settings, stages.consensus);
  stages.divisor_floor = settings.number("divisor_floor");
  stages.add_base = choice(settings, "add_base", stages.operand != CHORUS_OPERAND_X) != 0;
  if (stages.add_base && !settings.has_base()) fail(CHORUS_INVALID_ARGUMENT, "add_base is true; the recipe has no base_model");
  out.coefficients.lambda = settings.number("lambda");
  const bool drops = add_sparsify(settings, choice(settings, "sparsify", CHORUS_SPARSIFY_NONE), &out);
  check_granularity(settings, stages);
  add_weights(settings, &out);
  if (drops) add_rescale(settings, choice(settings, "rescale", CHORUS_RESCALE_NONE), &out);
  return out;
}

Parameter word(const char *name, const std::vector<const char *> &words, const char *doc) {
  return {name, ParameterType::kWord, false, false, kUnset, 0, static_cast<double>(words.size() - 1), doc, words};
}

Parameter optional_flag(const char *name, const char *doc) {
  return {name, ParameterType::kBoolean, false, false, kUnset, 0, 1, doc};
}

}  // namespace

Method custom_method() {
  return {"custom",
          "the stages that the recipe names",
          BaseUse::kOptional,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {word("operand", kOperands, "what is merged: x, delta, weighted_delta (votes with its weight); delta where there is a base"),
           word("granularity", kGranularities, "of ranks: tensor, row"),
           word("sparsify", kSparsifiers, "what is kept: none, magnitude, band, bernoulli, rank, variance"),
           {"density", ParameterType::kNumber, true, false, 1, 0, 1, "share of the elements kept by sparsify"},
           {"gamma", ParameterType::kNumber, true, false, 0.01, 0, 1, "band: share dropped for being the largest"},
           {"epsilon", ParameterType::kNumber, true, false, 0.15, 0, 1, "rank: how far the probability goes below and above density"},
           {"select_topk", ParameterType::kNumber, false, false, 1, 0, 1, "variance: share of the varying elements that is kept"},
           word("rescale", kRescales, "of what is kept: none, l1, inverse_density"),
           word("consensus", kConsensuses, "none, or sign: drop what disagrees with the sign of the sum"),
           word("combine", kCombines, "sum, mean (over all weights), mean_of_kept"),
           optional_flag("normalize", "combine: mean, under consensus mean_of_kept"),
           {"divisor_floor", ParameterType::kNumber, false, false, 0, 0, kInfinity, "mean_of_kept: least sum of weights divided by"},
           word("weights", kWeights, "given, or energy: mean square of what is kept, over its sum"),
           {"weight", ParameterType::kNumber, true, false, kUnset, -kInfinity, kInfinity, "weight of the model; 0: it is not read"},
           {"lambda", ParameterType::kNumber, false, false, 1, -kInfinity, kInfinity, "factor of what was combined"},
           optional_flag("add_base", "add base_model; true unless operand is x")},
          program};
}

}  // namespace chorus::merge
