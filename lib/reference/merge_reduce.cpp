// SPDX-License-Identifier: Apache-2.0
// merge.reduce: what is supported, the bytes of each statistic, and the walk over a piece. Statistics: merge_sums.cpp,
// merge_counts.cpp, and for rows as distributions plugin_merge.hpp.
#include "reference/merge_reduce.h"

#include <algorithm>
#include <cstring>

namespace chorus::reference {
namespace {

int32_t reduce_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  return check_reduce(*static_cast<const chorus_merge_reduce_desc *>(desc), why, bytes) == 0 ? 0 : kScore;
}

chorus_status reduce_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  auto *state = make_state<ReduceState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->desc = *static_cast<const chorus_merge_reduce_desc *>(desc);
  state->operands = operands_of(state->desc);
  state->desc.input_dtypes = nullptr;
  *out = state;
  return CHORUS_OK;
}

uint64_t reduce_workspace(const void *prepared, const void *args) {
  const auto &state = *static_cast<const ReduceState *>(prepared);
  return walk_bytes(state, *static_cast<const chorus_merge_reduce_args *>(args)) + sums_bytes(state);
}

chorus_status reduce_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot slot) {
  const auto &state = *static_cast<const ReduceState *>(prepared);
  const auto &args = *static_cast<const chorus_merge_reduce_args *>(args_pointer);
  const uint64_t needed = statistic_bytes(state.desc, groups_of(state.desc.granularity, args));
  if (args.statistic_bytes < needed)
    return report(state.host, slot, CHORUS_INVALID_ARGUMENT, "statistic_bytes is %llu; statistic %d of this piece takes %llu",
                  static_cast<unsigned long long>(args.statistic_bytes), state.desc.statistic,
                  static_cast<unsigned long long>(needed));
  if (is_row_statistic(state.desc)) {
    const uint64_t rows = groups_of(CHORUS_PER_ROW, args).count;
    for (uint64_t g = 0; g < rows; ++g) reduce_row(state.operands, state.desc, args, g);
    return CHORUS_OK;
  }
  auto *memory = static_cast<char *>(exec->workspace);
  Walk walk(state, args, memory);
  if (state.desc.statistic == CHORUS_STATISTIC_GRAM || state.desc.statistic == CHORUS_STATISTIC_SUM) {
    reduce_sums(state, args, &walk, memory + walk_bytes(state, args));
  } else {
    std::memset(args.statistic, 0, needed);
    reduce_counts(state, args, &walk);
  }
  return CHORUS_OK;
}

}  // namespace

uint64_t walk_bytes(const ReduceState &state, const chorus_merge_reduce_args &args) {
  if (state.desc.sparsify != CHORUS_SPARSIFY_RANK) return 0;
  return rank_bytes(state.desc.n_inputs, groups_of(state.desc.granularity, args).size);
}

Walk::Walk(const ReduceState &state, const chorus_merge_reduce_args &args, void *memory)
    : state_(state),
      args_(args),
      groups_(groups_of(state.desc.granularity, args)),
      sparsifier_(state.desc.predicate == CHORUS_PREDICATE_KEPT ? state.desc.sparsify : CHORUS_SPARSIFY_NONE,
                  state.desc.cut_statistic, state.desc.n_inputs, Chain(state.desc), sparsify_args(args),
                  state.desc.sparsify == CHORUS_SPARSIFY_RANK ? memory : nullptr, groups_.size) {}

void Walk::load(uint64_t at, double *deltas, bool *present, double *base) const {
  const Operands &o = state_.operands;
  const Chain chain(state_.desc);
  *base = args_.base != nullptr && o.has_base ? chain.round(o.base(args_.base, at)) : 0.0;
  for (int32_t i = 0; i < o.n_inputs; ++i) {
    present[i] = args_.inputs[i] != nullptr;
    const double x = present[i] ? chain.round(o.x(i, args_.inputs[i], at)) : 0.0;
    deltas[i] = o.deltas && present[i] ? chain.round(x - *base) : x;
  }
}

void Walk::begin_group(uint64_t group) {
  group_ = group;
  Terms terms;
  double base;
  sparsifier_.begin_group(group, groups_.size, [&](int32_t i, uint64_t j) {
    load(groups_.at(group, j), terms.values, terms.satisfied, &base);
    return terms.values[i];
  });
}

bool Walk::holds(int32_t i, double operand) const {
  switch (state_.desc.predicate) {
    case CHORUS_PREDICATE_ABOVE_EPSILON: return key_of(operand) > key_of(state_.desc.epsilon);
    case CHORUS_PREDICATE_PREFIX:
      return state_.desc.statistic == CHORUS_STATISTIC_VARIANCE_HISTOGRAM || args_.prefix_bits == 0 ||
             key_of(operand) >> (31 - args_.prefix_bits) == args_.prefixes[i];
    case CHORUS_PREDICATE_TIE: return key_of(operand) == key_of(args_.cuts[i]);
    default: return true;
  }
}

void Walk::element(uint64_t j, Terms *out) {
  const auto &d = state_.desc;
  const uint64_t at = groups_.at(group_, j);
  load(at, out->values, out->satisfied, &out->values[d.n_inputs]);
  out->satisfied[d.n_inputs] = true;
  sparsifier_.keep(j, args_.begin + at, out->values, out->satisfied);
  if (d.predicate == CHORUS_PREDICATE_TIE && d.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT &&
      d.cut_statistic == CHORUS_CUT_VARIANCE) {  // one statistic, and one cut, for all inputs
    const bool tie = key_of(Chain(d).round(variance(out->values, out->satisfied, d.n_inputs))) == key_of(args_.cuts[0]);
    for (int32_t i = 0; i < d.n_inputs; ++i) out->satisfied[i] = out->satisfied[i] && tie;
    return;
  }
  const double *w = args_.weights;
  if (d.operand == CHORUS_OPERAND_WEIGHTED_DELTA && d.granularity != CHORUS_PER_TENSOR)
    w += group_ * static_cast<uint64_t>(d.n_inputs);
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    if (d.operand == CHORUS_OPERAND_WEIGHTED_DELTA) out->values[i] = w[i] * out->values[i];
    out->satisfied[i] = out->satisfied[i] && holds(i, out->values[i]);
  }
}

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
