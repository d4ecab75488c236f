// SPDX-License-Identifier: Apache-2.0
// Elements of a merge on the device: inputs of any float format in f64, groups, draws, stores with one rounding
// (docs/numerics.md, "Merging"). The arrays of numbers a call brings lie in host memory; they travel with the launch, and
// vectors per row or column through the workspace.
#pragma once
#include <cstring>

#include "chorus/plugin_merge.hpp"
#include "cuda/device_math.cuh"

namespace chorus::cuda {

struct MergeInputs {
  const void *inputs[CHORUS_MERGE_MAX_INPUTS];
  chorus_dtype dtypes[CHORUS_MERGE_MAX_INPUTS];
  const void *base;
  chorus_dtype base_dtype;
  int32_t n;
  bool has_base, deltas, weighted;
  chorus_merge_granularity granularity;
  chorus_merge_sparsify sparsify;
  uint64_t begin, count, columns, row_stride;  // count: elements of all groups
  // Weights of group g at weights + g * weight_stride; of a piece without groups in `inline_weights`.
  const double *weights;
  int32_t weight_stride;
  double inline_weights[CHORUS_MERGE_MAX_INPUTS + 1];
  uint64_t keys[CHORUS_MERGE_MAX_INPUTS];
  uint64_t admissions[CHORUS_MERGE_MAX_INPUTS];
};

__device__ __forceinline__ double load64(chorus_dtype dtype, const void *data, uint64_t i) {
  if (dtype == CHORUS_F64) return static_cast<const double *>(data)[i];
  return static_cast<double>(load(dtype, data, static_cast<int64_t>(i)));
}

// f64 to f32 rounded to odd, so that narrowing further rounds once.
__device__ __forceinline__ float to_odd(double x) {
  const float toward_zero = __double2float_rz(x);
  if (x != x || static_cast<double>(toward_zero) == x) return toward_zero;
  return __uint_as_float(__float_as_uint(toward_zero) | 1u);
}

__device__ __forceinline__ void store64(chorus_dtype dtype, void *data, uint64_t i, double x) {
  switch (dtype) {
    case CHORUS_F64: static_cast<double *>(data)[i] = x; break;
    case CHORUS_F32: static_cast<float *>(data)[i] = static_cast<float>(x); break;
    default: store(dtype, data, static_cast<int64_t>(i), to_odd(x));
  }
}

struct MergePlace {
  uint64_t group, at;
};

// Element `e` of the piece, neighbours in memory being neighbours in e.
__device__ __forceinline__ MergePlace place_of(const MergeInputs &in, uint64_t e) {
  switch (in.granularity) {
    case CHORUS_PER_ROW: return {e / in.columns, e};
    case CHORUS_PER_COLUMN: return {e % in.columns, e / in.columns * in.row_stride + e % in.columns};
    default: return {0, e};
  }
}

__device__ __forceinline__ const double *weights_of(const MergeInputs &in, uint64_t group) {
  return in.weights != nullptr ? in.weights + group * static_cast<uint64_t>(in.weight_stride) : in.inline_weights;
}

// Operand i: x or x - base.
__device__ __forceinline__ double operand_of(const MergeInputs &in, int32_t i, uint64_t at, double base) {
  const double x = load64(in.dtypes[i], in.inputs[i], at);
  return in.deltas ? x - base : x;
}

__device__ __forceinline__ uint32_t magnitude_key(double x) {
  return x != x ? 0x7fc00000u : __float_as_uint(static_cast<float>(fabs(x)));
}

// What the sparsify stage keeps of input i.
__device__ inline bool is_drawn(const MergeInputs &in, int32_t i, uint64_t at) {
  if (in.sparsify != CHORUS_SPARSIFY_BERNOULLI) return true;
  const uint64_t index = in.begin + at;
  const uint32_t counter[4] = {static_cast<uint32_t>(index / 4), static_cast<uint32_t>(index / 4 >> 32), 0, 0};
  const uint32_t key[2] = {static_cast<uint32_t>(in.keys[i]), static_cast<uint32_t>(in.keys[i] >> 32)};
  uint32_t words[4];
  chorus_philox4x32(counter, key, words);
  const uint32_t word = index % 4 == 0 ? words[0] : index % 4 == 1 ? words[1] : index % 4 == 2 ? words[2] : words[3];
  return word < in.admissions[i];
}

// ---- On the host ----

template <typename Desc>
int32_t check_sparsify(const Desc &d, char *why, size_t bytes) {
  if (d.sparsify != CHORUS_SPARSIFY_NONE && d.sparsify != CHORUS_SPARSIFY_BERNOULLI)
    return refuse(why, bytes, "sparsify is %d; supported on CUDA: none, Bernoulli (0, 3)", d.sparsify);
  return 1;
}

template <typename Desc>
void describe_inputs(const Desc &d, MergeInputs *in) {
  in->n = d.n_inputs;
  in->has_base = d.has_base != 0;
  in->deltas = d.operand != CHORUS_OPERAND_X;
  in->weighted = d.operand == CHORUS_OPERAND_WEIGHTED_DELTA;
  in->base_dtype = d.base_dtype;
  in->granularity = d.granularity;
  in->sparsify = d.sparsify;
  for (int32_t i = 0; i < d.n_inputs; ++i) in->dtypes[i] = d.input_dtypes[i];
}

template <typename Args>
void take_inputs(const Args &args, MergeInputs *in) {
  const Groups groups = groups_of(in->granularity, args);
  for (int32_t i = 0; i < in->n; ++i) in->inputs[i] = args.inputs[i];
  in->base = in->has_base ? args.base : nullptr;
  in->begin = args.begin;
  in->count = groups.count * groups.size;
  in->columns = args.columns;
  in->row_stride = args.row_stride;
  if (in->sparsify != CHORUS_SPARSIFY_BERNOULLI || args.densities == nullptr || args.keys == nullptr) return;
  for (int32_t i = 0; i < in->n; ++i) {
    in->keys[i] = args.keys[i];
    in->admissions[i] = admission(args.densities[i]);
  }
}

inline uint64_t weights_bytes(const MergeInputs &in, uint64_t groups) {
  return in.granularity == CHORUS_PER_TENSOR ? 0 : aligned_on_device(8 * groups * static_cast<uint64_t>(in.weight_stride));
}

// Weights of a piece: with the launch, or to `memory` in stream order.
inline cudaError_t take_weights(const double *weights, uint64_t groups, MergeInputs *in, void *memory, const chorus_exec *exec) {
  const auto stride = static_cast<size_t>(in->weight_stride);
  if (weights == nullptr) return cudaSuccess;
  if (in->granularity == CHORUS_PER_TENSOR) {
    std::memcpy(in->inline_weights, weights, 8 * stride);
    return cudaSuccess;
  }
  in->weights = static_cast<const double *>(memory);
  return cudaMemcpyAsync(memory, weights, 8 * groups * stride, cudaMemcpyHostToDevice, static_cast<cudaStream_t>(exec->stream));
}

inline unsigned blocks_for(uint64_t count, unsigned each, const chorus_plugin_device *device) {
  const uint64_t most = static_cast<uint64_t>(device->processors) * 32, wanted = (count + each - 1) / each;
  return static_cast<unsigned>(wanted < most ? wanted : most);
}

}  // namespace chorus::cuda
