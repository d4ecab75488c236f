// SPDX-License-Identifier: Apache-2.0
// merge.apply: one piece of N tensors -> the merged piece, through the stages operand, sparsify, rescale, consensus,
// combine, lambda, base. f64 inside, multiply then add in input order, one rounding at the store; or with numerics mergekit a
// rounding at each step. Cost: one pass, and for ranks a sort per group.
#include <algorithm>

#include "reference/merge_sparsify.h"

namespace chorus::reference {
namespace {

struct ApplyState {
  const chorus_host *host;
  Operands operands;
  chorus_merge_desc desc;  // input_dtypes is in operands
};

int32_t apply_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  return check_apply(*static_cast<const chorus_merge_desc *>(desc), why, bytes) == 0 ? 0 : kScore;
}

chorus_status apply_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  auto *state = make_state<ApplyState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->desc = *static_cast<const chorus_merge_desc *>(desc);
  state->operands = operands_of(state->desc);
  state->desc.input_dtypes = nullptr;
  *out = state;
  return CHORUS_OK;
}

uint64_t apply_workspace(const void *prepared, const void *args) {
  const auto &d = static_cast<const ApplyState *>(prepared)->desc;
  if (d.sparsify != CHORUS_SPARSIFY_RANK) return 0;
  return rank_bytes(d.n_inputs, groups_of(d.granularity, *static_cast<const chorus_merge_args *>(args)).size);
}

// One element on its way through the stages. Inputs of weight 0 are absent.
struct Element {
  double base;
  double values[CHORUS_MERGE_MAX_INPUTS];
  bool kept[CHORUS_MERGE_MAX_INPUTS];
};

// Of the merge that runs: the weights of the group at hand, the sum of those that count.
struct Weights {
  const double *w;
  double sum;
};

Weights weights_of(const chorus_merge_desc &d, const chorus_merge_args &args, uint64_t group) {
  const uint64_t stride = static_cast<uint64_t>(d.n_inputs) + (d.combine == CHORUS_MERGE_COEFFICIENTS && d.has_base ? 1 : 0);
  Weights out{args.weights + (d.granularity == CHORUS_PER_TENSOR ? 0 : group * stride), 0.0};
  for (int32_t i = 0; i < d.n_inputs; ++i) out.sum = out.sum + out.w[i];
  return out;
}

void load(const ApplyState &state, const chorus_merge_args &args, const double *w, uint64_t at, bool needs_base, Element *e) {
  const Operands &o = state.operands;
  const Chain chain(state.desc);
  e->base = needs_base ? chain.round(o.base(args.base, at)) : 0.0;
  for (int32_t i = 0; i < o.n_inputs; ++i) {
    e->kept[i] = w[i] != 0.0 && args.inputs[i] != nullptr;
    e->values[i] = 0.0;
    if (!e->kept[i]) continue;
    const double x = chain.round(o.x(i, args.inputs[i], at));
    e->values[i] = o.deltas ? chain.round(x - e->base) : x;
  }
}

void rescale(const chorus_merge_desc &d, const chorus_merge_args &args, Element *e) {
  const Chain chain(d);
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    if (d.rescale == CHORUS_RESCALE_L1) e->values[i] = chain.round(args.rescales[i] * e->values[i]);
    if (d.rescale == CHORUS_RESCALE_INVERSE_DENSITY) e->values[i] = chain.round(e->values[i] / args.densities[i]);
  }
}

// The vote of input i: its value, weighted when the descriptor says so.
double vote(const chorus_merge_desc &d, const double *w, const Element &e, int32_t i) {
  const Chain chain(d);
  return d.operand == CHORUS_OPERAND_WEIGHTED_DELTA ? chain.round(chain.round(w[i]) * e.values[i]) : e.values[i];
}

// Elects + where the votes sum to 0 or more, else -, and drops what does not have the elected sign; 0 has none.
void elect_sign(const chorus_merge_desc &d, const double *w, Element *e) {
  double sum = 0.0;
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    if (e->kept[i]) sum = sum + vote(d, w, *e, i);
  }
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    const double v = vote(d, w, *e, i);
    e->kept[i] = e->kept[i] && (sum >= 0.0 ? v > 0.0 : v < 0.0);
  }
}

// The first product starts the sum, so that a single input of weight 1 comes back bit by bit (-0 too).
double combine(const chorus_merge_desc &d, const chorus_merge_args &args, const Weights &weights, const Element &e) {
  double sum = 0.0, divisor = 0.0;
  int32_t count = 0, last = 0;
  const auto add = [&](double w, double value) {
    const double product = w * value;
    sum = count++ == 0 ? product : sum + product;
  };
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    if (!e.kept[i]) continue;
    add(weights.w[i], e.values[i]);
    divisor = divisor + weights.w[i];
    last = i;
  }
  if (d.combine == CHORUS_MERGE_COEFFICIENTS && d.has_base && weights.w[d.n_inputs] != 0.0) add(weights.w[d.n_inputs], e.base);
  if (d.combine == CHORUS_MERGE_MEAN) return sum / weights.sum;
  if (d.combine != CHORUS_MERGE_MEAN_OF_KEPT) return sum;
  if (d.divisor_floor > 0.0) divisor = divisor > d.divisor_floor ? divisor : d.divisor_floor;
  if (divisor == 0.0) divisor = 1.0;
  const double mean = sum / divisor;
  return count == 1 && args.unique_scales != nullptr ? args.unique_scales[last] * mean : mean;
}

// Whether the terms are summed by fused multiply-add into one accumulator, as the rival's weighted average is.
bool is_fused(const chorus_merge_desc &d) {
  return d.operand == CHORUS_OPERAND_X && d.combine <= CHORUS_MERGE_MEAN && d.sparsify == CHORUS_SPARSIFY_NONE &&
         d.rescale == CHORUS_RESCALE_NONE && d.consensus == CHORUS_CONSENSUS_NONE;
}

// The same in the rival's chain: weighted averages fused, over the sum of the weights, rounded once; coefficients' products and
// sums in f32, rounded once; else each product, sum, weight and quotient rounded.
double combine_rounded(const chorus_merge_desc &d, const chorus_merge_args &args, const Weights &weights, const Element &e) {
  constexpr double kSmallDivisor = 1e-8;  // below it the rival divides by 1
  const Chain chain(d);
  const bool fused = is_fused(d), coefficients = d.combine == CHORUS_MERGE_COEFFICIENTS;
  double sum = 0.0, divisor = 0.0;
  int32_t count = 0, last = 0;
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    const double w = fused || coefficients ? chain.wide(weights.w[i]) : chain.round(weights.w[i]);
    if (d.combine == CHORUS_MERGE_MEAN || e.kept[i]) divisor = chain.wide(divisor + w);
    if (!e.kept[i]) continue;
    const double product = w * e.values[i];
    sum = fused ? chain.fused(e.values[i], w, sum) : chain.wide(sum + (coefficients ? chain.wide(product) : chain.round(product)));
    ++count;
    last = i;
  }
  if (coefficients && d.has_base && weights.w[d.n_inputs] != 0.0) sum = chain.wide(sum + chain.wide(chain.wide(weights.w[d.n_inputs]) * e.base));
  if (fused) return chain.round(d.combine == CHORUS_MERGE_MEAN ? sum / divisor : sum);
  sum = chain.round(sum);
  if (coefficients || d.combine == CHORUS_MERGE_SUM) return sum;
  divisor = chain.round(divisor);
  if (d.combine == CHORUS_MERGE_MEAN) return chain.round(sum / (std::fabs(divisor) < kSmallDivisor ? 1.0 : divisor));
  if (d.divisor_floor > 0.0) divisor = std::max(divisor, chain.round(d.divisor_floor));
  const double mean = chain.round(sum / (divisor == 0.0 ? 1.0 : divisor));
  return count == 1 && args.unique_scales != nullptr ? chain.round(args.unique_scales[last] * mean) : mean;
}

// Times lambda, plus the base.
double finish_rounded(const chorus_merge_desc &d, const chorus_merge_args &args, double base, double y) {
  const Chain chain(d);
  if (args.lambda != 1.0) y = chain.round(chain.wide(args.lambda) * y);
  return d.add_base != 0 ? chain.round(base + y) : y;
}

chorus_status apply_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &state = *static_cast<const ApplyState *>(prepared);
  const auto &args = *static_cast<const chorus_merge_args *>(args_pointer);
  const chorus_merge_desc &d = state.desc;
  const Groups groups = groups_of(d.granularity, args);
  Sparsifier sparsifier(d.sparsify, d.cut_statistic, d.n_inputs, Chain(d), sparsify_args(args),
                        d.sparsify == CHORUS_SPARSIFY_RANK ? exec->workspace : nullptr, groups.size);
  for (uint64_t g = 0; g < groups.count; ++g) {
    const Weights weights = weights_of(d, args, g);
    const bool any = std::any_of(weights.w, weights.w + d.n_inputs, [](double w) { return w != 0.0; });
    const bool base_is_term = d.combine == CHORUS_MERGE_COEFFICIENTS && d.has_base && weights.w[d.n_inputs] != 0.0;
    const bool needs_base = d.add_base != 0 || base_is_term || (state.operands.deltas && any);
    Element e;
    sparsifier.begin_group(g, groups.size, [&](int32_t i, uint64_t j) {
      load(state, args, weights.w, groups.at(g, j), needs_base, &e);
      return e.values[i];
    });
    for (uint64_t j = 0; j < groups.size; ++j) {
      const uint64_t at = groups.at(g, j);
      load(state, args, weights.w, at, needs_base, &e);
      sparsifier.keep(j, args.begin + at, e.values, e.kept);
      rescale(d, args, &e);
      if (d.consensus == CHORUS_CONSENSUS_SIGN) elect_sign(d, weights.w, &e);
      double y;
      if (d.numerics == CHORUS_NUMERICS_MERGEKIT) {
        y = finish_rounded(d, args, e.base, combine_rounded(d, args, weights, e));
      } else {
        y = args.lambda * combine(d, args, weights, e);
        if (d.add_base != 0) y = e.base + y;
      }
      store_f64(d.output_dtype, args.output, static_cast<int64_t>(at), y);
    }
  }
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kMergeApply = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                   CHORUS_OP_MERGE_APPLY,
                                   1,
                                   0,
                                   "merge_apply",
                                   apply_score,
                                   apply_prepare,
                                   apply_workspace,
                                   apply_run,
                                   free_state<ApplyState>,
                                   nullptr};

}  // namespace chorus::reference
