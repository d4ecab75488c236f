// SPDX-License-Identifier: Apache-2.0
// Checks weights once and calls each time, and hands them to the kernel.
#include "sparse/sparse.h"

#include <cmath>
#include <utility>

#include "runtime/device.h"
#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::sparse {
namespace {

constexpr int32_t kMostRows = 8;

// ---- Weights ----

void check_matrix_argument(const chorus_tensor *tensor, const char *name) {
  if (tensor == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{} is NULL; it is required", name);
  if (tensor->ndim != 2 || tensor->shape == nullptr) {
    fail(CHORUS_INVALID_ARGUMENT, "{} has {} dimensions; [outputs, inputs] is needed", name, tensor->ndim);
  }
  if (tensor->shape[0] < 1 || tensor->shape[1] < 1 || tensor->shape[0] > INT32_MAX || tensor->shape[1] > INT32_MAX) {
    fail(CHORUS_INVALID_ARGUMENT, "{} is [{}, {}]; sizes of 1 to 2^31 - 1 are allowed", name, tensor->shape[0],
         tensor->shape[1]);
  }
}

void check_scales(const chorus_tensor &t, const char *name, const Device &host) {
  const chorus_quant *q = t.quant;
  if (q == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{} holds integers without a quant; its scales are needed", name);
  if (q->struct_size < CHORUS_END_OF(chorus_quant, packing)) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: quant->struct_size is {}; initialise it with CHORUS_QUANT_INIT", name, q->struct_size);
  }
  if (q->axis != 1) fail(CHORUS_INVALID_ARGUMENT, "{}: quant->axis is {}; scales lie along 1, one per output", name, q->axis);
  if (q->packing != CHORUS_PACKING_NONE || q->group_size != 0 || q->zero_points != nullptr) {
    fail(CHORUS_UNIMPLEMENTED, "{}: quant->packing is {}, group_size {}, zero_points {}; int8 with one scale per output is "
         "supported (0, 0, NULL)", name, q->packing, q->group_size, q->zero_points != nullptr ? "given" : "NULL");
  }
  const std::string scales = std::string(name) + ".quant->scales";
  check_tensor(q->scales, {scales.c_str(), {CHORUS_F32, CHORUS_F16, CHORUS_BF16}, {t.shape[0], 1}, false, false}, host);
}

void check_weights(const chorus_tensor *tensor, const char *name, int64_t rows, int64_t columns, chorus_dtype dtype,
                   const Device &host) {
  check_tensor(tensor, {name, {CHORUS_F32, CHORUS_BF16, CHORUS_I8}, {rows, columns}, false, true, dtype == CHORUS_I8}, host);
  if (dtype_of(*tensor) != dtype) fail(CHORUS_INVALID_ARGUMENT, "{}: its dtype is not that of the other weights", name);
  if (dtype == CHORUS_I8) check_scales(*tensor, name, host);
}

void check_bias(const chorus_tensor *bias, const char *name, int64_t count, const Device &host) {
  if (bias != nullptr) check_tensor(bias, {name, {CHORUS_F32}, {count}}, host);
}

bool is_gated(chorus_activation activation) {
  return activation != CHORUS_ACTIVATION_RELU && activation != CHORUS_ACTIVATION_RELU2;
}

PreparedKernel prepare_linear(const DevicePtr &device, const SparseSpec &spec, const Device &host) {
  check_weights(spec.down, "weights", spec.outputs(), spec.inputs(), dtype_of(*spec.down), host);
  check_bias(spec.down_bias, "output bias", spec.outputs(), host);
  chorus_sparse_gemv_desc desc = CHORUS_SPARSE_GEMV_DESC_INIT;
  desc.inputs = spec.inputs();
  desc.outputs = spec.outputs();
  desc.max_rows = spec.max_rows;
  desc.side = spec.side;
  desc.pick = spec.pick;
  desc.weights_dtype = dtype_of(*spec.down);
  desc.x_dtype = spec.x_dtype;
  desc.y_dtype = spec.y_dtype;
  desc.threshold = spec.threshold;
  desc.dense_above = spec.dense_above;
  desc.weights = spec.down;
  desc.bias = spec.down_bias;
  return PreparedKernel::prepare(device, CHORUS_OP_SPARSE_GEMV, &desc);
}

PreparedKernel prepare_ffn(const DevicePtr &device, const SparseSpec &spec, const Device &host) {
  const int64_t hidden = spec.inputs(), intermediate = spec.up->shape[0];
  const chorus_dtype dtype = dtype_of(*spec.up);
  check_weights(spec.up, "up", intermediate, hidden, dtype, host);
  check_weights(spec.down, "down", hidden, intermediate, dtype, host);
  if (spec.gate != nullptr) check_weights(spec.gate, "gate", intermediate, hidden, dtype, host);
  check_bias(spec.gate_bias, "gate bias", intermediate, host);
  check_bias(spec.up_bias, "up bias", intermediate, host);
  check_bias(spec.down_bias, "output bias", hidden, host);
  chorus_sparse_ffn_desc desc = CHORUS_SPARSE_FFN_DESC_INIT;
  desc.hidden = hidden;
  desc.intermediate = intermediate;
  desc.max_rows = spec.max_rows;
  desc.pick = spec.pick;
  desc.activation = spec.activation;
  desc.weights_dtype = dtype;
  desc.x_dtype = spec.x_dtype;
  desc.y_dtype = spec.y_dtype;
  desc.threshold = spec.threshold;
  desc.dense_above = spec.dense_above;
  desc.gate = spec.gate;
  desc.up = spec.up;
  desc.down = spec.down;
  desc.gate_bias = spec.gate_bias;
  desc.up_bias = spec.up_bias;
  desc.down_bias = spec.down_bias;
  return PreparedKernel::prepare(device, CHORUS_OP_SPARSE_FFN, &desc);
}

PreparedKernel prepare(const std::shared_ptr<const Context> &context, const SparseSpec &spec, const char *name) {
  const DevicePtr device = find_device(context, name), host = find_device(context, "reference");
  return spec.is_ffn ? prepare_ffn(device, spec, *host) : prepare_linear(device, spec, *host);
}

void check_presence(const char *name, const chorus_tensor *tensor, bool wanted) {
  if (wanted && tensor == nullptr) {
    fail(CHORUS_INVALID_ARGUMENT, "{} is NULL; the spec asks for it (chorus_sparse_spec_set_pick)", name);
  }
  if (!wanted && tensor != nullptr) {
    fail(CHORUS_INVALID_ARGUMENT, "{} is given; the spec takes none (chorus_sparse_spec_set_pick)", name);
  }
}

}  // namespace

// ---- Spec ----

SparseSpec::SparseSpec(const chorus_tensor *weights, chorus_sparse_side skipped) : is_ffn(false), down(weights), side(skipped) {
  check_matrix_argument(weights, "weights");
  if (side != CHORUS_SPARSE_INPUTS && side != CHORUS_SPARSE_OUTPUTS) {
    fail(CHORUS_INVALID_ARGUMENT, "side is {}; 0 (inputs) and 1 (outputs) are known", side);
  }
  if (side == CHORUS_SPARSE_OUTPUTS) pick = CHORUS_SPARSE_GIVEN;
}

SparseSpec::SparseSpec(const chorus_tensor *gates, const chorus_tensor *ups, const chorus_tensor *downs)
    : is_ffn(true), gate(gates), up(ups), down(downs) {
  check_matrix_argument(up, "up");
  check_matrix_argument(down, "down");
  if (gate != nullptr) check_matrix_argument(gate, "gate");
  if (gate == nullptr) activation = CHORUS_ACTIVATION_RELU;
}

void SparseSpec::set_pick(chorus_sparse_pick rule, double least) {
  if (rule < CHORUS_SPARSE_NONZERO || rule > CHORUS_SPARSE_GIVEN) {
    fail(CHORUS_INVALID_ARGUMENT, "pick is {}; 0 to {} are known", rule, CHORUS_SPARSE_GIVEN);
  }
  if (!is_ffn && side == CHORUS_SPARSE_OUTPUTS && rule != CHORUS_SPARSE_SCORES && rule != CHORUS_SPARSE_GIVEN) {
    fail(CHORUS_INVALID_ARGUMENT, "pick is {}; outputs are kept by scores or a list ({}, {})", rule, CHORUS_SPARSE_SCORES,
         CHORUS_SPARSE_GIVEN);
  }
  const bool has_threshold = rule == CHORUS_SPARSE_MAGNITUDE || rule == CHORUS_SPARSE_SCORES;
  if (std::isnan(least) || (rule == CHORUS_SPARSE_MAGNITUDE && least < 0) || (!has_threshold && least != 0)) {
    fail(CHORUS_INVALID_ARGUMENT, "threshold is {}; {}", least,
         has_threshold ? "a number, for magnitudes 0 or more, is needed" : "this pick has none: 0 is needed");
  }
  pick = rule;
  threshold = least;
}

void SparseSpec::set_activation(chorus_activation kind) {
  if (!is_ffn) fail(CHORUS_INVALID_ARGUMENT, "activation is {}; a linear spec has none", kind);
  if (kind < CHORUS_ACTIVATION_SWIGLU || kind > CHORUS_ACTIVATION_RELU2) {
    fail(CHORUS_INVALID_ARGUMENT, "activation is {}; 0 to {} (SwiGLU to ReLU^2) are supported", kind, CHORUS_ACTIVATION_RELU2);
  }
  if (is_gated(kind) != (gate != nullptr)) {
    fail(CHORUS_INVALID_ARGUMENT, "activation is {}, which has {} gate; the spec has {}", kind, is_gated(kind) ? "a" : "no",
         gate != nullptr ? "one" : "none");
  }
  activation = kind;
}

void SparseSpec::set_biases(const chorus_tensor *gates, const chorus_tensor *ups, const chorus_tensor *output) {
  if (!is_ffn && (gates != nullptr || ups != nullptr)) {
    fail(CHORUS_INVALID_ARGUMENT, "{} is given; a linear spec has an output bias alone", gates != nullptr ? "gate" : "up");
  }
  if (gates != nullptr && gate == nullptr) fail(CHORUS_INVALID_ARGUMENT, "gate is given; the spec has no gate");
  gate_bias = gates;
  up_bias = ups;
  down_bias = output;
}

// ---- Calls ----

Sparse::Sparse(const std::shared_ptr<const Context> &context, const SparseSpec &spec, const char *device)
    : pick_(spec.pick),
      x_dtype_(spec.x_dtype),
      y_dtype_(spec.y_dtype),
      inputs_(spec.inputs()),
      outputs_(spec.outputs()),
      indices_(spec.indices()),
      max_rows_(spec.max_rows),
      kernel_(prepare(context, spec, device)) {}

void Sparse::check_rows(int64_t rows) const {
  if (rows < 0 || rows > max_rows_) {
    fail(CHORUS_INVALID_ARGUMENT, "x has {} rows; 0 to {} (the spec's max_rows) are allowed", rows, max_rows_);
  }
}

void Sparse::run(const chorus_tensor *x, const chorus_sparse_in &in, const chorus_tensor *y, const chorus_sparse_out &out,
                 double *density, const chorus_exec *exec) const {
  const Device &device = *kernel_.device();
  check_tensor(x, {"x", {x_dtype_}, {kAnySize, inputs_}}, device);
  const int64_t rows = x->shape[0];
  check_rows(rows);
  check_presence("scores", in.scores, pick_ == CHORUS_SPARSE_SCORES);
  check_presence("given", in.given, pick_ == CHORUS_SPARSE_GIVEN);
  if (in.scores != nullptr) check_tensor(in.scores, {"scores", {CHORUS_F32}, {rows, indices_}}, device);
  if (in.given != nullptr) check_tensor(in.given, {"given", {CHORUS_I32}, {rows, kAnySize}}, device);
  check_tensor(y, {"y", {y_dtype_}, {rows, outputs_}, true}, device);
  if (out.kept != nullptr) check_tensor(out.kept, {"kept", {CHORUS_I32}, {rows, indices_}, true}, device);
  if (out.counts != nullptr) check_tensor(out.counts, {"counts", {CHORUS_I32}, {rows}, true}, device);
  const std::pair<const chorus_tensor *, const char *> inputs[] = {{x, "x"}, {in.scores, "scores"}, {in.given, "given"}};
  const std::pair<const chorus_tensor *, const char *> outputs[] = {{y, "y"}, {out.kept, "kept"}, {out.counts, "counts"}};
  for (const auto &[output, name] : outputs) {
    for (const auto &[input, other] : inputs) {
      if (output != nullptr && input != nullptr) check_no_overlap(*output, name, *input, other);
    }
    for (const auto &[second, other] : outputs) {
      if (output != nullptr && second != nullptr && output != second) check_no_overlap(*output, name, *second, other);
    }
  }
  if (density != nullptr && !is_host_memory(device)) {
    fail(CHORUS_UNIMPLEMENTED, "out_density is given, and '{}' has its own memory; ask for counts", device.name());
  }
  int32_t own_counts[kMostRows] = {};
  chorus_tensor own = CHORUS_TENSOR_INIT;
  own.data = own_counts;
  own.size_bytes = sizeof own_counts;
  own.device_type = CHORUS_DEVICE_HOST;
  own.dtype_code = CHORUS_DTYPE_CODE_INT;
  own.dtype_bits = 32;
  own.dtype_lanes = 1;
  own.ndim = 1;
  own.shape = &rows;
  const chorus_tensor *counts = out.counts == nullptr && density != nullptr ? &own : out.counts;
  const chorus_sparse_args args = {CHORUS_END_OF(chorus_sparse_args, counts), rows, x, in.scores, in.given, y, out.kept, counts};
  kernel_.run(&args, exec);
  if (density == nullptr) return;
  double kept = 0;
  const int64_t stride = counts->strides != nullptr ? counts->strides[0] : 1;
  for (int64_t t = 0; t < rows; ++t) kept += static_cast<const int32_t *>(counts->data)[t * stride];
  *density = rows > 0 ? kept / (static_cast<double>(rows) * static_cast<double>(indices_)) : 0.0;
}

uint64_t Sparse::workspace_size(int64_t rows) const {
  check_rows(rows);
  chorus_sparse_args args = CHORUS_SPARSE_ARGS_INIT;
  args.rows = rows;
  return kernel_.workspace_size(&args);
}

}  // namespace chorus::sparse
