// SPDX-License-Identifier: Apache-2.0
// Elements of tensors and warp-wide steps in device code. Formats widen exactly and narrow with one rounding to nearest
// even; choices use the operations of exact_math.h.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "chorus/exact_math.h"
#include "cuda/backend.h"

namespace chorus::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }
__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fc00000); }
__device__ __forceinline__ double infinity64() { return __longlong_as_double(0x7ff0000000000000ll); }
__device__ __forceinline__ double not_a_number64() { return __longlong_as_double(0x7ff8000000000000ll); }

__device__ __forceinline__ float from_bf16(uint32_t bits) { return __uint_as_float(bits << 16); }
__device__ __forceinline__ float from_f16(uint32_t bits) { return __half2float(__ushort_as_half(static_cast<unsigned short>(bits))); }

__device__ __forceinline__ float load(chorus_dtype dtype, const void *data, int64_t i) {
  switch (dtype) {
    case CHORUS_F16: return from_f16(static_cast<const uint16_t *>(data)[i]);
    case CHORUS_BF16: return from_bf16(static_cast<const uint16_t *>(data)[i]);
    default: return static_cast<const float *>(data)[i];
  }
}

__device__ __forceinline__ uint16_t to_f16(float x) { return __half_as_ushort(__float2half_rn(x)); }
__device__ __forceinline__ uint16_t to_bf16(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }

__device__ __forceinline__ void store(chorus_dtype dtype, void *data, int64_t i, float x) {
  switch (dtype) {
    case CHORUS_F16: static_cast<uint16_t *>(data)[i] = to_f16(x); break;
    case CHORUS_BF16: static_cast<uint16_t *>(data)[i] = to_bf16(x); break;
    default: static_cast<float *>(data)[i] = x;
  }
}

// A float's bits as an integer that orders like it; -0 as +0. Every number is above 0, which stands for none.
__device__ __forceinline__ uint32_t sortable(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float from_sortable(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ uint64_t sortable64(double x) {
  const auto bits = static_cast<uint64_t>(__double_as_longlong(x + 0.0));
  return bits >> 63 != 0 ? ~bits : bits | uint64_t{1} << 63;
}
__device__ __forceinline__ double from_sortable64(uint64_t key) {
  return __longlong_as_double(static_cast<long long>(key >> 63 != 0 ? key & ~(uint64_t{1} << 63) : ~key));
}

// The highest value and, among equals, the lowest index win a maximum of these.
__device__ __forceinline__ uint64_t ranked(float x, int64_t index) {
  return uint64_t{sortable(x)} << 32 | static_cast<uint32_t>(~static_cast<uint32_t>(index));
}
__device__ __forceinline__ float value_of(uint64_t key) { return from_sortable(static_cast<uint32_t>(key >> 32)); }
__device__ __forceinline__ int64_t index_of(uint64_t key) { return static_cast<uint32_t>(~static_cast<uint32_t>(key)); }

__device__ __forceinline__ uint64_t greater(uint64_t a, uint64_t b) { return a > b ? a : b; }

__device__ __forceinline__ uint64_t warp_max(uint64_t x) {
  for (int step = 16; step > 0; step /= 2) x = greater(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}
__device__ __forceinline__ uint64_t warp_sum(uint64_t x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
// Sums of the lanes before this one.
__device__ __forceinline__ uint64_t warp_before(uint64_t x) {
  const unsigned lane = threadIdx.x % 32;
  uint64_t sum = x;
  for (unsigned step = 1; step < 32; step *= 2) {
    const uint64_t other = __shfl_up_sync(kAllLanes, sum, step);
    if (lane >= step) sum += other;
  }
  return sum - x;
}

// Launches with the attributes of `config`; the arguments are those of the kernel.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(cudaLaunchConfig_t config, void (*kernel)(Parameters...), Arguments &&...arguments) {
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

inline cudaLaunchConfig_t grid_of(dim3 grid, unsigned threads, const chorus_exec *exec, size_t shared_bytes = 0) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(exec->stream);
  return config;
}

}  // namespace chorus::cuda
