// SPDX-License-Identifier: Apache-2.0
// merge.apply on the processor: which way a descriptor goes, and how a piece is cut among threads. The bytes are the
// reference's, for any cut.
#include "cpu/merge_apply.h"

#include <algorithm>

namespace chorus::cpu {
namespace {

struct ApplyState {
  const chorus_host *host;
  Operands operands;
  chorus_merge_desc desc;  // input_dtypes is in operands
  PlainFunction plain;
};

// Elements a thread takes at once: large beside the price of a task, small beside a piece.
constexpr uint64_t kGrain = 16 * CHORUS_BLOCK;

int32_t apply_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_merge_desc *>(desc);
  if (check_apply(d, why, bytes) == 0) return 0;
  if (d.granularity == CHORUS_PER_COLUMN)
    return refuse(why, bytes, "granularity is per column (2); supported: tensor, row (0, 1)");
  if (d.sparsify != CHORUS_SPARSIFY_NONE || d.rescale != CHORUS_RESCALE_NONE || d.consensus != CHORUS_CONSENSUS_NONE ||
      d.combine == CHORUS_MERGE_MEAN_OF_KEPT)
    return refuse(why, bytes, "sparsify, rescale, consensus are %d, %d, %d, combine is %d; supported: none (0), no mean of kept (2)",
                  d.sparsify, d.rescale, d.consensus, d.combine);
  return kScore;
}

chorus_status apply_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  auto *state = make_state<ApplyState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->desc = *static_cast<const chorus_merge_desc *>(desc);
  state->operands = operands_of(state->desc);
  state->desc.input_dtypes = nullptr;
  state->plain = plain_for(device);
  *out = state;
  return CHORUS_OK;
}

uint64_t apply_workspace(const void *, const void *) { return 0; }

// The weighted sum of a group: inputs of nonzero weight in order, with coefficients the base as the last of them.
PlainJob plain_job(const ApplyState &state, const chorus_merge_args &args, const double *w) {
  const chorus_merge_desc &d = state.desc;
  PlainJob job{};
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    job.divisor = job.divisor + w[i];
    if (w[i] != 0.0 && args.inputs[i] != nullptr) job.terms[job.count++] = {args.inputs[i], state.operands.dtypes[i], w[i]};
  }
  job.deltas = state.operands.deltas;
  job.mean = d.combine == CHORUS_MERGE_MEAN;
  job.add_base = d.add_base != 0;
  job.needs_base = job.add_base || (job.deltas && job.count > 0);
  job.base = {args.base, d.base_dtype, 0.0};
  if (d.combine == CHORUS_MERGE_COEFFICIENTS && d.has_base != 0 && w[d.n_inputs] != 0.0)
    job.terms[job.count++] = {args.base, d.base_dtype, w[d.n_inputs]};
  job.lambda = args.lambda;
  job.output_dtype = d.output_dtype;
  job.output = args.output;
  return job;
}

void run_plain(const ApplyState &state, const chorus_merge_args &args) {
  const chorus_merge_desc &d = state.desc;
  const Groups groups = groups_of(d.granularity, args);
  if (groups.count == 1) {
    const PlainJob job = plain_job(state, args, args.weights);
    parallel_for(state.host, static_cast<int64_t>((groups.size + kGrain - 1) / kGrain), [&](int64_t i) {
      const uint64_t begin = static_cast<uint64_t>(i) * kGrain;
      state.plain(job, begin, std::min(groups.size, begin + kGrain));
    });
    return;
  }
  const uint64_t stride = static_cast<uint64_t>(d.n_inputs) + (d.combine == CHORUS_MERGE_COEFFICIENTS && d.has_base != 0 ? 1 : 0);
  const uint64_t rows = std::max<uint64_t>(1, kGrain / std::max<uint64_t>(1, groups.size));
  parallel_for(state.host, static_cast<int64_t>((groups.count + rows - 1) / rows), [&](int64_t i) {
    const uint64_t first = static_cast<uint64_t>(i) * rows;
    for (uint64_t g = first; g < std::min(groups.count, first + rows); ++g)
      state.plain(plain_job(state, args, args.weights + g * stride), g * groups.size, (g + 1) * groups.size);
  });
}

chorus_status apply_run(const void *prepared, const void *args, const chorus_exec *, chorus_error_slot) {
  run_plain(*static_cast<const ApplyState *>(prepared), *static_cast<const chorus_merge_args *>(args));
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

}  // namespace chorus::cpu
