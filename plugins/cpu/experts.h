// SPDX-License-Identifier: Apache-2.0
// experts.ffn on the cpu: what its files share. experts_pack lays the weights out once, experts_plan sorts the slots of a
// call by expert, experts_multiply and experts_elementwise are the vector code, experts_ffn runs the phases.
#pragma once
#include <atomic>
#include <cstdint>

#include "cpu/backend.h"

namespace chorus::cpu {

// ---- Packed weights ----

// Columns of a packed matrix come in strips of 16; a cell is a strip's `unit` neighbouring depths, contiguous, the depths
// of a column beside each other (bf16 in pairs, so that a 32-bit lane holds one column). Panels of one or more strips hold
// all their cells depth by depth: what a multiplication streams is contiguous.
inline constexpr int64_t kStrip = 16;

struct PackedMatrix {
  const char *data;
  chorus_dtype dtype;
  int64_t depth;         // of the multiplication: columns of the source
  int64_t depth_padded;  // a multiple of 32; the rest is 0
  int64_t columns;       // padded: a multiple of 64
  int64_t unit;          // depths per cell
  int64_t strips;        // per panel
  int64_t expert_bytes;

  int64_t cell_bytes() const { return kStrip * unit * static_cast<int64_t>(bytes_of(dtype)); }
  int64_t step_bytes() const { return cell_bytes() * strips; }  // from a cell to the next of its strip
  const char *strip(int64_t expert, int64_t index) const {
    const int64_t panel_bytes = step_bytes() * (depth_padded / unit);
    return data + expert * expert_bytes + index / strips * panel_bytes + index % strips * cell_bytes();
  }
};

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Floats from a row of operands to the next: one cache line more than the depth, so that rows do not share cache sets.
inline int64_t operand_stride(const PackedMatrix &m) { return m.depth_padded + kStrip; }

// ---- Vector code, picked per device ----

// out[r][0 … 16 n_strips) = row r times the strips, each sum in the order of the depths, in f32. `then`: weights that will
// be multiplied next, or NULL.
using MultiplyFn = void (*)(const PackedMatrix &matrix, int64_t expert, int64_t first_strip, int64_t n_strips,
                            const float *const *rows, int64_t n_rows, float *out, int64_t out_stride, const char *then);

struct ActivationArgs {
  const float *in;  // [rows, in_stride]: for each 16 outputs 16 gates and 16 ups; without gates 16 ups
  int64_t in_stride, rows;
  const float *bias;  // as a row of `in`, or NULL
  float *out;         // [rows, out_stride]
  int64_t out_stride;
  int64_t n_outputs;  // a multiple of 16
  int64_t n_valid;    // outputs from here on are 0
  chorus_dtype operand_dtype;  // outputs are rounded to it
  chorus_activation activation;
  float limit;
};
using ActivateFn = void (*)(const ActivationArgs &);

// out = factor * x as f32, rounded to operand_dtype; zeros up to n_padded.
struct OperandArgs {
  const void *x;
  chorus_dtype x_dtype, operand_dtype;
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
ActivateFn pick_activate(const chorus_plugin_device *device);
OperandFn pick_operand(const chorus_plugin_device *device);
CombineFn pick_combine(const chorus_plugin_device *device);

// ---- The prepared kernel ----

struct ExpertsState {
  const chorus_host *host;
  int32_t n_experts, k;
  int64_t hidden, intermediate;
  chorus_dtype weights_dtype, x_dtype, y_dtype, ids_dtype;
  chorus_activation activation;
  float limit;
  bool weight_before;
  PackedMatrix gate_up, down;
  const float *gate_up_bias, *down_bias;  // [E, columns] of the packed matrices, or NULL
  const int32_t *map;                     // NULL: identity
  int64_t n_ids;                          // ids the map knows, or n_experts
  MultiplyFn multiply;
  ActivateFn activate;
  OperandFn operand;
  CombineFn combine;
  void *memory;  // all packed arrays
  uint64_t bytes;
};

// Whether `activation` has gate rows.
inline bool is_gated(chorus_activation activation) {
  return activation != CHORUS_ACTIVATION_RELU && activation != CHORUS_ACTIVATION_RELU2;
}

// Fills gate_up, down, biases and map of `state` from the descriptor's tensors.
chorus_status pack_experts(const chorus_experts_desc &desc, ExpertsState *state, chorus_error_slot slot);

// ---- A call's slots, by expert ----

// Slots that count, sorted by expert, then by slot. `place` is the position of each slot, -1 for one that does not count.
struct ExpertsPlan {
  int32_t *begin;    // [E + 1] positions
  int32_t *active;   // experts with slots, most slots first
  int32_t *place;    // [T * k]
  int32_t *slot_of;  // [T * k] by position
  float *weight;     // [T * k] by slot
  int32_t *expert;   // [T * k] by slot
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
