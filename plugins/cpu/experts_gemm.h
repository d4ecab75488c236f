// SPDX-License-Identifier: Apache-2.0
// Experts with many rows: oneDNN's matrix product over weights that are unpacked, a band of columns at a time, from the one
// packed copy there is. It runs in the calling thread alone; the pool divides the bands.
#pragma once
#include "cpu/experts.h"

namespace chorus::cpu {

// Below, reading and unpacking the weights costs more than the faster arithmetic gains.
inline constexpr int64_t kGemmRows = 24;
// Rows of an expert whose products a worker holds at a time.
inline constexpr int64_t kGemmRowBlock = 256;

// Sets up state->gemm for the packed matrices; it stays off where oneDNN has nothing better than its reference code.
void prepare_gemm(const chorus_plugin_device *device, ExpertsState *state);
void release_gemm(ExpertsState *state);

// Bytes of the unpacked weights of a band.
inline int64_t band_bytes(const ExpertsGemm &gemm, const PackedMatrix &m, int64_t strips) {
  return static_cast<int64_t>(aligned(static_cast<uint64_t>(m.depth_padded * strips * kStrip * gemm.element_bytes())));
}

// out[r][0 … columns) = row r of `rows` times the unpacked `weights` [depth_padded, columns]; `primitive` is that of m.
void gemm_multiply(const ExpertsGemm &gemm, void *primitive, const PackedMatrix &m, int64_t columns, const void *rows,
                   int64_t n_rows, const void *weights, float *out, int64_t out_stride);

}  // namespace chorus::cpu
