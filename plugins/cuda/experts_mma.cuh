// SPDX-License-Identifier: Apache-2.0
// Products of expert weights on the tensor cores, sm_80 and above: weights are the 16-row operand of mma.m16n8k16, read from
// device memory straight into its registers, slots the 8-column one, up to 32 of them per read of the weights. The sum over
// k may take k in any order, so a lane's 16 bytes of a row serve two multiplications. f32 accumulators.
#pragma once
#include "cuda/experts_call.cuh"

namespace chorus::cuda {

inline constexpr int kMmaTile = 32;      // slots
inline constexpr int kMmaColumns = 512;  // staged at a time
inline constexpr int kMmaPad = 8;        // so that rows begin in different banks

// 16-bit weights whose rows are whole 16-byte vectors.
inline bool uses_tensor_cores(const ExpertsCall &call) {
  return (call.weights_dtype == CHORUS_BF16 || call.weights_dtype == CHORUS_F16) && call.hidden % 8 == 0 && call.intermediate % 8 == 0;
}

__device__ __forceinline__ void mma(chorus_dtype dtype, float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  if (dtype == CHORUS_BF16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
}

// sums[n][…]: of slots 8 n … 8 n + 7 with the lane's rows `upper` (row lane / 4 of the warp's 16) and `lower` (8 further):
// [0], [1] the upper row with slots 2 (lane % 4), + 1; [2], [3] the lower row. A NULL row counts as zeros.
template <typename Input>
__device__ __forceinline__ void multiply_mma(chorus_dtype dtype, const char *upper, const char *lower, int64_t columns, int count,
                                             const Input &input, float (&sums)[kMmaTile / 8][4]) {
  __shared__ __align__(16) uint16_t staged[kMmaTile][kMmaColumns + kMmaPad];
  const int lane = threadIdx.x % 32, group = lane / 4, part = lane % 4, n_tiles = (count + 7) / 8;
#pragma unroll
  for (int n = 0; n < kMmaTile / 8; ++n) sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0.0f;
  const uint4 zero = make_uint4(0, 0, 0, 0);
  for (int64_t begin = 0; begin < columns; begin += kMmaColumns) {
    const int width = static_cast<int>(columns - begin < kMmaColumns ? columns - begin : kMmaColumns);
    const int padded = (width + 31) / 32 * 32;
    __syncthreads();
    for (int i = threadIdx.x; i < n_tiles * 8 * padded; i += kExpertThreads) {
      const int m = i / padded, c = i % padded;
      const float x = m < count && c < width ? input(m, begin + c) : 0.0f;
      staged[m][c] = dtype == CHORUS_BF16 ? to_bf16(x) : to_f16(x);
    }
    __syncthreads();
#pragma unroll 4
    for (int step = 0; step < padded; step += 32) {
      const int c = step + 8 * part;
      const int64_t at = 2 * (begin + c);
      const uint4 a = upper != nullptr && c < width ? __ldg(reinterpret_cast<const uint4 *>(upper + at)) : zero;
      const uint4 b = lower != nullptr && c < width ? __ldg(reinterpret_cast<const uint4 *>(lower + at)) : zero;
#pragma unroll
      for (int n = 0; n < kMmaTile / 8; ++n) {
        if (n >= n_tiles) continue;
        const uint4 x = *reinterpret_cast<const uint4 *>(&staged[8 * n + group][c]);
        mma(dtype, sums[n], a.x, b.x, a.y, b.y, x.x, x.y);
        mma(dtype, sums[n], a.z, b.z, a.w, b.w, x.z, x.w);
      }
    }
  }
}

// h = act(gate x, up x): blocks (tiles, outputs / 64); the warp's upper rows are gates of 8 outputs, the lower ones their ups.
__global__ void __launch_bounds__(kExpertThreads) gate_up_mma_kernel(const __grid_constant__ ExpertsCall call) {
  if (static_cast<int32_t>(blockIdx.x) >= *call.n_tiles) return;
  const int32_t *tile = call.tiles + 3 * blockIdx.x;
  const int32_t expert = tile[0], *slots = call.order + tile[1], count = tile[2];
  const int lane = threadIdx.x % 32;
  const int64_t i = (int64_t{blockIdx.y} * (kExpertThreads / 32) + threadIdx.x / 32) * 8 + lane / 4;
  const GateUpRows at = i < call.intermediate ? rows_of(call, i) : GateUpRows{-1, -1};
  const auto row_at = [&](int64_t r) { return r < 0 ? nullptr : call.gate_up + 2 * (expert * call.wide + r) * call.hidden; };
  float sums[kMmaTile / 8][4];
  multiply_mma(call.weights_dtype, row_at(at.gate), row_at(at.up), call.hidden, count,
               [&](int m, int64_t c) { return operand_of(call, slots[m], c); }, sums);
  if (i >= call.intermediate) return;
#pragma unroll
  for (int n = 0; n < kMmaTile / 8; ++n) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int m = 8 * n + 2 * (lane % 4) + j;
      if (m < count) store_h(call, expert, slots[m], i, at, sums[n][j], sums[n][2 + j]);
    }
  }
}

// out = down h: blocks (tiles, H / 128); a warp makes 16 outputs.
__global__ void __launch_bounds__(kExpertThreads) down_mma_kernel(const __grid_constant__ ExpertsCall call) {
  if (static_cast<int32_t>(blockIdx.x) >= *call.n_tiles) return;
  const int32_t *tile = call.tiles + 3 * blockIdx.x;
  const int32_t expert = tile[0], *slots = call.order + tile[1], count = tile[2];
  const int lane = threadIdx.x % 32;
  const int64_t first = (int64_t{blockIdx.y} * (kExpertThreads / 32) + threadIdx.x / 32) * 16 + lane / 4;
  const auto row_at = [&](int64_t r) { return r >= call.hidden ? nullptr : call.down + 2 * (expert * call.hidden + r) * call.intermediate; };
  float sums[kMmaTile / 8][4];
  multiply_mma(call.weights_dtype, row_at(first), row_at(first + 8), call.intermediate, count,
               [&](int m, int64_t c) { return call.h[slots[m] * call.intermediate + c]; }, sums);
#pragma unroll
  for (int n = 0; n < kMmaTile / 8; ++n) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int m = 8 * n + 2 * (lane % 4) + j % 2;
      const int64_t r = first + (j < 2 ? 0 : 8);
      if (m >= count || r >= call.hidden) continue;
      call.out[slots[m] * call.hidden + r] = call.down_bias != nullptr ? sums[n][j] + call.down_bias[expert * call.hidden + r] : sums[n][j];
    }
  }
}

}  // namespace chorus::cuda
