// SPDX-License-Identifier: Apache-2.0
// merge.apply: one piece of N tensors -> the merged piece, through the stages operand, sparsify (draws alone), rescale,
// consensus, combine, lambda, base. f64 inside, multiply then add in input order, one rounding at the store: the bits of
// every backend. Bytes: each input that counts once (twice from cache under a consensus), the output once.
#include "cuda/merge_element.cuh"

namespace chorus::cuda {
namespace {

constexpr int kThreads = 256;

struct ApplyCall {
  MergeInputs in;
  void *output;
  chorus_dtype output_dtype;
  chorus_merge_rescale rescale;
  chorus_merge_consensus consensus;
  chorus_merge_combine combine;
  bool add_base, has_unique;
  double lambda, divisor_floor;
  double rescales[CHORUS_MERGE_MAX_INPUTS];  // factors, or densities to divide by
  double unique_scales[CHORUS_MERGE_MAX_INPUTS];
};

__device__ __forceinline__ double value_of_input(const ApplyCall &call, int32_t i, uint64_t at, double base) {
  const double a = operand_of(call.in, i, at, base);
  if (call.rescale == CHORUS_RESCALE_L1) return call.rescales[i] * a;
  return call.rescale == CHORUS_RESCALE_INVERSE_DENSITY ? a / call.rescales[i] : a;
}

// Which inputs count at this element, after the sparsify stage.
__device__ __forceinline__ uint64_t kept_inputs(const ApplyCall &call, const double *w, uint64_t at) {
  uint64_t kept = 0;
  for (int32_t i = 0; i < call.in.n; ++i) {
    if (w[i] != 0.0 && call.in.inputs[i] != nullptr && is_drawn(call.in, i, at)) kept |= uint64_t{1} << i;
  }
  return kept;
}

// Leaves the inputs of the elected sign: + where the votes sum to 0 or more, else -; 0 has none.
__device__ __forceinline__ uint64_t elect_sign(const ApplyCall &call, const double *w, uint64_t at, double base, uint64_t kept) {
  const auto vote = [&](int32_t i) {
    const double a = value_of_input(call, i, at, base);
    return call.in.weighted ? w[i] * a : a;
  };
  double sum = 0.0;
  for (int32_t i = 0; i < call.in.n; ++i) {
    if (kept >> i & 1) sum = sum + vote(i);
  }
  for (int32_t i = 0; i < call.in.n; ++i) {
    if ((kept >> i & 1) == 0) continue;
    const double v = vote(i);
    if (!(sum >= 0.0 ? v > 0.0 : v < 0.0)) kept &= ~(uint64_t{1} << i);
  }
  return kept;
}

// The first product starts the sum, so that a single input of weight 1 comes back bit by bit (-0 too).
__device__ __forceinline__ double combine(const ApplyCall &call, const double *w, uint64_t at, double base, uint64_t kept) {
  double sum = 0.0, divisor = 0.0;
  int32_t count = 0, last = 0;
  for (int32_t i = 0; i < call.in.n; ++i) {
    if ((kept >> i & 1) == 0) continue;
    const double product = w[i] * value_of_input(call, i, at, base);
    sum = count++ == 0 ? product : sum + product;
    divisor = divisor + w[i];
    last = i;
  }
  if (call.combine == CHORUS_MERGE_COEFFICIENTS && call.in.has_base && w[call.in.n] != 0.0) {
    const double product = w[call.in.n] * base;
    sum = count++ == 0 ? product : sum + product;
  }
  if (call.combine == CHORUS_MERGE_MEAN) {
    double all = 0.0;
    for (int32_t i = 0; i < call.in.n; ++i) all = all + w[i];
    return sum / all;
  }
  if (call.combine != CHORUS_MERGE_MEAN_OF_KEPT) return sum;
  if (call.divisor_floor > 0.0) divisor = divisor > call.divisor_floor ? divisor : call.divisor_floor;
  if (divisor == 0.0) divisor = 1.0;
  const double mean = sum / divisor;
  return count == 1 && call.has_unique ? call.unique_scales[last] * mean : mean;
}

__global__ void __launch_bounds__(kThreads) apply_kernel(const __grid_constant__ ApplyCall call) {
  for (uint64_t e = uint64_t{blockIdx.x} * kThreads + threadIdx.x; e < call.in.count; e += uint64_t{gridDim.x} * kThreads) {
    const MergePlace place = place_of(call.in, e);
    const double *w = weights_of(call.in, place.group);
    const double base = call.in.base != nullptr ? load64(call.in.base_dtype, call.in.base, place.at) : 0.0;
    uint64_t kept = kept_inputs(call, w, place.at);
    if (call.consensus == CHORUS_CONSENSUS_SIGN) kept = elect_sign(call, w, place.at, base, kept);
    double y = call.lambda * combine(call, w, place.at, base, kept);
    if (call.add_base) y = base + y;
    store64(call.output_dtype, call.output, place.at, y);
  }
}

struct ApplyState {
  const chorus_host *host;
  chorus_plugin_device *device;
  ApplyCall call;
};

int32_t score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_merge_desc *>(desc);
  return check_apply(d, why, bytes) == 0 || check_accurate(d, why, bytes) == 0 || check_sparsify(d, why, bytes) == 0 ? 0 : kScore;
}

chorus_status prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_merge_desc *>(desc);
  auto *state = make_state<ApplyState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->device = device;
  ApplyCall &call = state->call;
  describe_inputs(d, &call.in);
  call.in.weight_stride = d.n_inputs + (d.combine == CHORUS_MERGE_COEFFICIENTS && d.has_base != 0 ? 1 : 0);
  call.output_dtype = d.output_dtype;
  call.rescale = d.rescale;
  call.consensus = d.consensus;
  call.combine = d.combine;
  call.add_base = d.add_base != 0;
  call.divisor_floor = d.divisor_floor;
  *out = state;
  return CHORUS_OK;
}

uint64_t workspace(const void *prepared, const void *args_pointer) {
  const MergeInputs &in = static_cast<const ApplyState *>(prepared)->call.in;
  return weights_bytes(in, groups_of(in.granularity, *static_cast<const chorus_merge_args *>(args_pointer)).count);
}

chorus_status run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot slot) {
  const auto &state = *static_cast<const ApplyState *>(prepared);
  const auto &args = *static_cast<const chorus_merge_args *>(args_pointer);
  ApplyCall call = state.call;
  take_inputs(args, &call.in);
  if (call.in.count == 0) return CHORUS_OK;
  call.output = args.output;
  call.lambda = args.lambda;
  call.has_unique = args.unique_scales != nullptr;
  for (int32_t i = 0; i < call.in.n; ++i) {
    if (call.rescale == CHORUS_RESCALE_L1) call.rescales[i] = args.rescales[i];
    if (call.rescale == CHORUS_RESCALE_INVERSE_DENSITY) call.rescales[i] = args.densities[i];
    if (call.has_unique) call.unique_scales[i] = args.unique_scales[i];
  }
  const uint64_t groups = groups_of(call.in.granularity, args).count;
  return enqueue(state.device, exec, "merge_apply", slot, [&] {
    const cudaError_t error = take_weights(args.weights, groups, &call.in, exec->workspace, exec);
    if (error != cudaSuccess) return error;
    return launch(grid_of(dim3(blocks_for(call.in.count, kThreads, state.device)), kThreads, exec), apply_kernel, call);
  });
}

}  // namespace

const chorus_kernel kMergeApply = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                   CHORUS_OP_MERGE_APPLY,
                                   1,
                                   0,
                                   "merge_apply",
                                   score,
                                   prepare,
                                   workspace,
                                   run,
                                   free_state<ApplyState>,
                                   nullptr};

}  // namespace chorus::cuda
