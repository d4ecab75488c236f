// SPDX-License-Identifier: Apache-2.0
// merge.reduce: one piece of N tensors -> its Gram matrix in f64, in the order of docs/numerics.md, "Reductions".
// Cost: n(n+1)/2 multiply-adds per element; workspace: one block of f64 operands, and per pair one slot per tree level.
#include <new>

#include "reference/backend.h"

namespace chorus::reference {
namespace {

struct ReduceState {
  const chorus_host *host;
  int32_t n_inputs;
  bool has_base;
  bool deltas;
  chorus_dtype base_dtype;
  chorus_dtype dtypes[CHORUS_MERGE_MAX_INPUTS];
};

int32_t reduce_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_merge_reduce_desc *>(desc);
  if (d.n_inputs < 1 || d.n_inputs > CHORUS_MERGE_MAX_INPUTS)
    return refuse(why, bytes, "n_inputs is %d; supported: 1 to %d", d.n_inputs, CHORUS_MERGE_MAX_INPUTS);
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    if (!is_float(d.input_dtypes[i]))
      return refuse(why, bytes, "input_dtypes[%d] is 0x%x; supported: f64, f32, f16, bf16", i, d.input_dtypes[i]);
  }
  if (d.has_base != 0 && !is_float(d.base_dtype))
    return refuse(why, bytes, "base_dtype is 0x%x; supported: f64, f32, f16, bf16", d.base_dtype);
  if (d.operand != CHORUS_OPERAND_X && d.operand != CHORUS_OPERAND_DELTA)
    return refuse(why, bytes, "operand is %d; supported: x, delta (0, 1)", d.operand);
  if (d.operand == CHORUS_OPERAND_DELTA && d.has_base == 0)
    return refuse(why, bytes, "operand is delta and has_base is 0; a delta needs a base");
  if (d.statistic != CHORUS_STATISTIC_GRAM)
    return refuse(why, bytes, "statistic is %d; supported: gram (0)", d.statistic);
  if (d.predicate != CHORUS_PREDICATE_ALL)
    return refuse(why, bytes, "predicate is %d; supported: all (0)", d.predicate);
  if (d.granularity != CHORUS_PER_TENSOR)
    return refuse(why, bytes, "granularity is %d; supported: per tensor (0)", d.granularity);
  if (d.numerics != CHORUS_NUMERICS_ACCURATE)
    return refuse(why, bytes, "numerics is %d; supported: accurate (0)", d.numerics);
  return kScore;
}

chorus_status reduce_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_merge_reduce_desc *>(desc);
  auto *state = make_state<ReduceState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->n_inputs = d.n_inputs;
  state->has_base = d.has_base != 0;
  state->deltas = d.operand == CHORUS_OPERAND_DELTA;
  state->base_dtype = d.base_dtype;
  for (int32_t i = 0; i < d.n_inputs; ++i) state->dtypes[i] = d.input_dtypes[i];
  *out = state;
  return CHORUS_OK;
}

// Operands of the Gram: the inputs, and with operand x the base after them.
int32_t operands(const ReduceState &state) { return state.n_inputs + (state.has_base && !state.deltas ? 1 : 0); }
uint64_t pairs(uint64_t n) { return n * (n + 1) / 2; }
uint64_t block_bytes(const ReduceState &state) {
  return static_cast<uint64_t>(operands(state)) * CHORUS_BLOCK * sizeof(double);
}

uint64_t reduce_workspace(const void *prepared, const void *) {
  const auto &state = *static_cast<const ReduceState *>(prepared);
  return block_bytes(state) + pairs(static_cast<uint64_t>(operands(state))) * sizeof(PairwiseStream<double>);
}

// Loads elements [from, from + count) of operand i as f64; an absent input is 0.
void load_operand(const ReduceState &state, const chorus_merge_reduce_args &args, int32_t i, uint64_t from, int64_t count,
                  double *out) {
  const bool is_base = i == state.n_inputs;
  const void *data = is_base ? args.base : args.inputs[i];
  const chorus_dtype dtype = is_base ? state.base_dtype : state.dtypes[i];
  for (int64_t e = 0; e < count; ++e) {
    const int64_t at = static_cast<int64_t>(from) + e;
    const double x = data == nullptr ? 0.0 : load_f64(dtype, data, at);
    out[e] = state.deltas && data != nullptr ? x - load_f64(state.base_dtype, args.base, at) : x;
  }
}

double block_product(const double *a, const double *b, int64_t count) {
  double lanes[CHORUS_LANES] = {};
  for (int64_t e = 0; e < count; ++e) lanes[e % CHORUS_LANES] += a[e] * b[e];
  return join_pairwise(lanes, CHORUS_LANES);
}

chorus_status reduce_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot slot) {
  const auto &state = *static_cast<const ReduceState *>(prepared);
  const auto &args = *static_cast<const chorus_merge_reduce_args *>(args_pointer);
  const int32_t n = operands(state);
  const uint64_t results = pairs(static_cast<uint64_t>(n));
  if (args.statistic_bytes < results * sizeof(double))
    return report(state.host, slot, CHORUS_INVALID_ARGUMENT, "statistic_bytes is %llu; a Gram of %d operands takes %llu",
                  static_cast<unsigned long long>(args.statistic_bytes), n,
                  static_cast<unsigned long long>(results * sizeof(double)));
  auto *block = static_cast<double *>(exec->workspace);
  auto *sums = reinterpret_cast<PairwiseStream<double> *>(static_cast<char *>(exec->workspace) + block_bytes(state));
  for (uint64_t p = 0; p < results; ++p) new (sums + p) PairwiseStream<double>;

  for (uint64_t from = 0; from < args.count; from += CHORUS_BLOCK) {
    const uint64_t left = args.count - from;
    const auto count = static_cast<int64_t>(left < CHORUS_BLOCK ? left : CHORUS_BLOCK);
    for (int32_t i = 0; i < n; ++i) load_operand(state, args, i, from, count, block + int64_t{i} * CHORUS_BLOCK);
    uint64_t pair = 0;
    for (int32_t i = 0; i < n; ++i) {
      for (int32_t j = i; j < n; ++j) {
        sums[pair++].add(block_product(block + int64_t{i} * CHORUS_BLOCK, block + int64_t{j} * CHORUS_BLOCK, count));
      }
    }
  }
  auto *statistic = static_cast<double *>(args.statistic);
  for (uint64_t p = 0; p < results; ++p) statistic[p] = sums[p].join();
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kMergeReduce = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                    CHORUS_OP_MERGE_REDUCE,
                                    1,
                                    0,
                                    "merge_reduce",
                                    reduce_score,
                                    reduce_prepare,
                                    reduce_workspace,
                                    reduce_run,
                                    free_state<ReduceState>,
                                    nullptr};

}  // namespace chorus::reference
