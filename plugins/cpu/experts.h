// SPDX-License-Identifier: Apache-2.0
// experts.ffn on the cpu: what its files share. experts_pack lays the weights out once, experts_plan sorts the slots of a
// call by expert, experts_multiply and experts_elementwise are the vector code, experts_ffn runs the phases.
#pragma once
#include <atomic>
#include <cstdint>

#include "chorus/plugin_experts.hpp"
#include "cpu/backend.h"

namespace chorus::cpu {

// ---- Packed weights ----

// Columns of a packed matrix come in strips of 16; a cell is a strip's `unit` neighbouring depths, contiguous, the depths
// of a column beside each other: bf16 in pairs, so that a 32-bit lane holds one column; int8 in pairs; int4 in eights, of
// which the 32-bit lane of a column holds the even ones in its lower half, the odd ones in its upper. The cells of a strip
// follow each other depth by depth: what a multiplication streams is contiguous.
inline constexpr int64_t kStrip = 16;

struct PackedMatrix {
  const char *data;
  chorus_dtype dtype;
  int64_t depth;         // of the multiplication: columns of the source
  int64_t depth_padded;  // a multiple of 32; the rest is 0
  int64_t columns;       // padded: a multiple of 64
  int64_t unit;          // depths per cell
  int64_t expert_bytes;
  // Integers alone: f32 [E, strips, groups, 16], and the depths of a group, and of a block that is summed in integers.
  const float *scales;
  int64_t groups, group, block;

  int64_t cell_bytes() const { return kStrip * unit * static_cast<int64_t>(dtype >> 8) / 8; }
  int64_t strip_bytes() const { return cell_bytes() * (depth_padded / unit); }
  const char *strip(int64_t expert, int64_t index) const { return data + expert * expert_bytes + index * strip_bytes(); }
  const float *strip_scales(int64_t expert, int64_t index) const {
    return scales + (expert * (columns / kStrip) + index) * groups * kStrip;
  }
  int64_t blocks() const { return (depth + block - 1) / block; }
};

// Depths that integers sum exactly: 2 * 32767 * 128 for each of 64 pairs stays below 2^31.
inline constexpr int64_t kMostBlock = 128;

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Floats from a row of operands to the next: one cache line more than the depth, so that rows do not share cache sets.
inline int64_t operand_stride(const PackedMatrix &m) { return m.depth_padded + kStrip; }

// A row of operands for integer weights: a factor per block, then 16-bit integers, which times their factor are the operand.
inline int64_t integer_factors(const PackedMatrix &m) { return round_up(m.blocks(), kStrip); }
inline int64_t integer_stride(const PackedMatrix &m) { return integer_factors(m) + m.depth_padded / 2 + kStrip; }

// ---- Vector code, picked per device ----

// out[r][0 … 16 n_strips) = row r times the strips, each sum in the order of the depths, in f32; for integer weights rows
// are as quantise() leaves them. `then`: weights that will be multiplied next, or NULL.
using MultiplyFn = void (*)(const PackedMatrix &matrix, int64_t expert, int64_t first_strip, int64_t n_strips,
                            const float *const *rows, int64_t n_rows, float *out, int64_t out_stride, const char *then);

// The operands of `row` as integers of 16 bits for m, at `out`; a block that holds NaN or an infinity becomes NaN.
using QuantiseFn = void (*)(const PackedMatrix &m, const float *row, float *out);

struct ActivationArgs {
  const float *in;  // [rows, in_stride]: for each 16 outputs 16 gates and 16 ups; without gates 16 ups
  int64_t in_stride, rows;
  const float *bias;  // as a row of `in`, or NULL
  float *out;         // [rows, out_stride]
  int64_t out_stride;
  int64_t n_outputs;  // a multiple of 16
  int64_t n_valid;    // outputs from here on are 0
  chorus_dtype operand;  // outputs are rounded to it
  chorus_activation activation;
  float limit;
};
using ActivateFn = void (*)(const ActivationArgs &);

// out = factor * x as f32, rounded to `operand`; zeros up to n_padded.
struct OperandArgs {
  const void *x;
  chorus_dtype x_dtype, operand;
  float factor;
  int64_t n, n_padded;
  float *out;
};
using OperandFn = void (*)(const OperandArgs &);

// y[i] = sum_j weights[j] * (rows[j][i] + biases[j][i]) from +0 in order of j, stored once; a NULL bias is 0.
struct CombineArgs {
  const float *const *rows;
  const float *const *biases;
  const float *weights;
  int64_t n_rows, n;
  chorus_dtype y_dtype;
  void *y;
};
using CombineFn = void (*)(const CombineArgs &);

// Of the instruction set of `device`.
MultiplyFn pick_multiply(const chorus_plugin_device *device, chorus_dtype weights_dtype);
MultiplyFn pick_multiply_integers(const chorus_plugin_device *device, chorus_dtype weights_dtype);
QuantiseFn pick_quantise(const chorus_plugin_device *device);
ActivateFn pick_activate(const chorus_plugin_device *device);
OperandFn pick_operand(const chorus_plugin_device *device);
CombineFn pick_combine(const chorus_plugin_device *device);

// ---- Experts with many rows: oneDNN (experts_gemm.h) ----

struct ExpertsGemm {
  chorus_dtype type;  // of rows and unpacked weights: bf16 or f32; 0: oneDNN is not used
  int64_t least_rows;
  int64_t gate_up_strips, down_strips;  // of a band, at most
  void *gate_up, *down;  // dnnl_primitive_t, for any number of rows and columns
  void *engine;

  bool takes(int64_t rows) const { return type != 0 && rows >= least_rows; }
  int64_t element_bytes() const { return type == CHORUS_BF16 ? 2 : 4; }
};

// Strips [first, first + n) of an expert as a matrix [depth_padded, 16 n] of `type` (bf16 or f32) at `out`.
using UnpackFn = void (*)(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, chorus_dtype type,
                          void *out);
// n operands (f32 values of the operand dtype) as `type`.
using NarrowFn = void (*)(const float *row, int64_t n, chorus_dtype type, void *out);

UnpackFn pick_unpack(const chorus_plugin_device *device);
NarrowFn pick_narrow(const chorus_plugin_device *device);

// ---- The prepared kernel ----

struct ExpertsState {
  const chorus_host *host;
  int32_t n_experts, n_shared, k;
  int64_t slots;  // of a token: k, then the shared experts
  int64_t hidden, intermediate;
  chorus_dtype weights_dtype, operand, x_dtype, y_dtype, ids_dtype;
  chorus_activation activation;
  float limit;
  bool weight_before, batch_invariant;
  PackedMatrix gate_up, down;
  const float *gate_up_bias, *down_bias;  // [E, columns] of the packed matrices, or NULL
  const int32_t *map;                     // NULL: identity
  int64_t n_ids;                          // ids the map knows, or the experts that are routed
  MultiplyFn multiply;
  QuantiseFn quantise;  // NULL unless the weights are integers
  ActivateFn activate;
  OperandFn make_operand;
  CombineFn combine;
  ExpertsGemm gemm;
  UnpackFn unpack;
  NarrowFn narrow;
  void *memory;  // all packed arrays
  uint64_t bytes;
};

// Fills gate_up, down, biases and map of `state` from the descriptor's tensors.
chorus_status pack_experts(const chorus_experts_desc &desc, ExpertsState *state, chorus_error_slot slot);

// ---- A call's slots, by expert ----

// Slots that count, sorted by expert, then by slot. `place` is the position of each slot, -1 for one that does not count.
struct ExpertsPlan {
  int32_t *begin;    // [E + 1] positions
  int32_t *active;   // experts with slots, most slots first
  int32_t *place;    // [T * slots]
  int32_t *slot_of;  // [T * slots] by position
  float *weight;     // [T * slots] by slot
  int32_t *expert;   // [T * slots] by slot
  int64_t n_active, n_slots;

  int64_t rows(int32_t e) const { return begin[e + 1] - begin[e]; }
};

// Plans tokens [first, first + count) and writes their statuses.
void plan_slots(const ExpertsState &state, const chorus_experts_args &args, int64_t first, int64_t count,
                ExpertsPlan *plan);

// ---- Work in tasks of unequal size ----

// At most so many pieces take tasks, each with scratch of its own: the workspace must not depend on the threads.
inline constexpr int64_t kWorkers = 16;

// Calls body(worker, task) for tasks [0, count) in that order of starting.
template <typename Body>
void run_tasks(const chorus_host *host, int64_t count, const Body &body) {
  std::atomic<int64_t> next{0};
  parallel_for(host, count < kWorkers ? count : kWorkers, [&](int64_t worker) {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(worker, task);
  });
}

}  // namespace chorus::cpu
