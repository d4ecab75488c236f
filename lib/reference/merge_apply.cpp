// SPDX-License-Identifier: Apache-2.0
// merge.apply: one piece of N tensors -> the merged piece: weighted sum, mean or given coefficients of x or x - base.
// f64 inside, multiply then add in input order, one rounding at the store. Cost: one pass; no workspace.
#include "reference/backend.h"

namespace chorus::reference {
namespace {

struct ApplyState {
  const chorus_host *host;
  int32_t n_inputs;
  bool has_base, deltas, mean, coefficients, add_base;
  chorus_dtype base_dtype, output_dtype;
  chorus_dtype dtypes[CHORUS_MERGE_MAX_INPUTS];
};

int32_t check_dtypes(const chorus_merge_desc &d, char *why, size_t bytes) {
  if (d.n_inputs < 1 || d.n_inputs > CHORUS_MERGE_MAX_INPUTS)
    return refuse(why, bytes, "n_inputs is %d; supported: 1 to %d", d.n_inputs, CHORUS_MERGE_MAX_INPUTS);
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    if (!is_float(d.input_dtypes[i]))
      return refuse(why, bytes, "input_dtypes[%d] is 0x%x; supported: f64, f32, f16, bf16", i, d.input_dtypes[i]);
  }
  if (d.has_base != 0 && !is_float(d.base_dtype))
    return refuse(why, bytes, "base_dtype is 0x%x; supported: f64, f32, f16, bf16", d.base_dtype);
  if (!is_float(d.output_dtype))
    return refuse(why, bytes, "output_dtype is 0x%x; supported: f64, f32, f16, bf16", d.output_dtype);
  return kScore;
}

int32_t apply_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_merge_desc *>(desc);
  if (check_dtypes(d, why, bytes) == 0) return 0;
  if (d.operand != CHORUS_OPERAND_X && d.operand != CHORUS_OPERAND_DELTA)
    return refuse(why, bytes, "operand is %d; supported: x, delta (0, 1)", d.operand);
  if (d.operand == CHORUS_OPERAND_DELTA && d.has_base == 0)
    return refuse(why, bytes, "operand is delta and has_base is 0; a delta needs a base");
  if (d.combine != CHORUS_MERGE_SUM && d.combine != CHORUS_MERGE_MEAN && d.combine != CHORUS_MERGE_COEFFICIENTS)
    return refuse(why, bytes, "combine is %d; supported: sum, mean, coefficients (0, 1, 3)", d.combine);
  if (d.combine == CHORUS_MERGE_COEFFICIENTS && d.operand != CHORUS_OPERAND_X)
    return refuse(why, bytes, "combine is coefficients and operand is %d; supported: x (0)", d.operand);
  if (d.add_base != 0 && d.has_base == 0)
    return refuse(why, bytes, "add_base is %u and has_base is 0; adding a base needs one", d.add_base);
  if (d.granularity != CHORUS_PER_TENSOR)
    return refuse(why, bytes, "granularity is %d; supported: per tensor (0)", d.granularity);
  if (d.sparsify != CHORUS_SPARSIFY_NONE)
    return refuse(why, bytes, "sparsify is %d; supported: none (0)", d.sparsify);
  if (d.rescale != CHORUS_RESCALE_NONE) return refuse(why, bytes, "rescale is %d; supported: none (0)", d.rescale);
  if (d.consensus != CHORUS_CONSENSUS_NONE)
    return refuse(why, bytes, "consensus is %d; supported: none (0)", d.consensus);
  if (d.numerics != CHORUS_NUMERICS_ACCURATE)
    return refuse(why, bytes, "numerics is %d; supported: accurate (0)", d.numerics);
  return kScore;
}

chorus_status apply_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_merge_desc *>(desc);
  auto *state = make_state<ApplyState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->n_inputs = d.n_inputs;
  state->has_base = d.has_base != 0;
  state->deltas = d.operand == CHORUS_OPERAND_DELTA;
  state->mean = d.combine == CHORUS_MERGE_MEAN;
  state->coefficients = d.combine == CHORUS_MERGE_COEFFICIENTS;
  state->add_base = d.add_base != 0;
  state->base_dtype = d.base_dtype;
  state->output_dtype = d.output_dtype;
  for (int32_t i = 0; i < d.n_inputs; ++i) state->dtypes[i] = d.input_dtypes[i];
  *out = state;
  return CHORUS_OK;
}

uint64_t apply_workspace(const void *, const void *) { return 0; }

// Inputs of nonzero weight, in order; with coefficients the base is the last of them.
struct Term {
  const void *data;
  chorus_dtype dtype;
  double weight;
};

int32_t collect(const ApplyState &state, const chorus_merge_args &args, Term *terms) {
  int32_t count = 0;
  for (int32_t i = 0; i < state.n_inputs; ++i) {
    if (args.weights[i] != 0.0) terms[count++] = {args.inputs[i], state.dtypes[i], args.weights[i]};
  }
  if (state.coefficients && state.has_base && args.weights[state.n_inputs] != 0.0)
    terms[count++] = {args.base, state.base_dtype, args.weights[state.n_inputs]};
  return count;
}

// The first product starts the sum, so that a single input of weight 1 comes back bit by bit (-0 too).
double weighted_sum(const ApplyState &state, const Term *terms, int32_t count, double base, int64_t element) {
  double sum = 0.0;
  for (int32_t i = 0; i < count; ++i) {
    const double x = load_f64(terms[i].dtype, terms[i].data, element);
    const double product = terms[i].weight * (state.deltas ? x - base : x);
    sum = i == 0 ? product : sum + product;
  }
  return sum;
}

chorus_status apply_run(const void *prepared, const void *args_pointer, const chorus_exec *, chorus_error_slot) {
  const auto &state = *static_cast<const ApplyState *>(prepared);
  const auto &args = *static_cast<const chorus_merge_args *>(args_pointer);
  Term terms[CHORUS_MERGE_MAX_INPUTS + 1];
  const int32_t count = collect(state, args, terms);
  double weights = 0.0;
  for (int32_t i = 0; i < count; ++i) weights += terms[i].weight;
  const bool needs_base = state.add_base || (state.deltas && count > 0);
  for (uint64_t e = 0; e < args.count; ++e) {
    const auto at = static_cast<int64_t>(e);
    const double base = needs_base ? load_f64(state.base_dtype, args.base, at) : 0.0;
    double y = weighted_sum(state, terms, count, base, at);
    if (state.mean) y = y / weights;
    y = args.lambda * y;
    if (state.add_base) y = base + y;
    store_f64(state.output_dtype, args.output, at, y);
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
