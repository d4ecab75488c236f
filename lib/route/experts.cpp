// SPDX-License-Identifier: Apache-2.0
// Checks weights once and calls each time, and hands them to the kernel.
#include "route/experts.h"

#include "runtime/device.h"
#include "runtime/dtype.h"
#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::route {
namespace {

// Weights may come from host memory whatever the device; they are then checked as host tensors.
void check_weights(const chorus_tensor *tensor, const TensorRule &rule, const Device &device, const Device &host) {
  const bool is_host = tensor != nullptr && tensor->device_type == CHORUS_DEVICE_HOST;
  check_tensor(tensor, rule, is_host ? host : device);
}

bool has_gate(chorus_activation activation) {
  return activation != CHORUS_ACTIVATION_RELU && activation != CHORUS_ACTIVATION_RELU2;
}

// The dtype of the values, which for int4 is not that of the elements.
chorus_dtype weights_dtype_of(const chorus_tensor &t) {
  return t.quant != nullptr && t.quant->packing == CHORUS_PACKING_INT4 ? CHORUS_I4 : dtype_of(t);
}

void check_quant(const chorus_tensor &t, const char *name, const char *scales_name, int64_t rows, int64_t columns,
                 const Device &host) {
  const chorus_quant *q = t.quant;
  if (q == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{} holds integers without a quant; its scales are needed", name);
  if (q->struct_size < CHORUS_END_OF(chorus_quant, packing)) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: quant->struct_size is {}; initialise it with CHORUS_QUANT_INIT", name, q->struct_size);
  }
  if (q->axis != 2) fail(CHORUS_INVALID_ARGUMENT, "{}: quant->axis is {}; groups lie along 2, the columns", name, q->axis);
  if (q->packing > CHORUS_PACKING_INT4) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: quant->packing is {}; 0 (i8) and 1 (int4) are known", name, q->packing);
  }
  if (q->group_size < 0) fail(CHORUS_INVALID_ARGUMENT, "{}: quant->group_size is {}; 0 or more is needed", name, q->group_size);
  if (q->zero_points != nullptr) {
    fail(CHORUS_UNIMPLEMENTED, "{}: quant->zero_points are given; weights must be symmetric (NULL)", name);
  }
  if (t.device_type != CHORUS_DEVICE_HOST) fail(CHORUS_UNIMPLEMENTED, "{}: quantised weights must be in host memory", name);
  const int64_t groups = q->group_size > 0 ? (columns - 1) / q->group_size + 1 : 1;
  check_tensor(q->scales, {scales_name, {CHORUS_F32, CHORUS_F16, CHORUS_BF16}, {t.shape[0], rows, groups}, false, false}, host);
}

void check_spec(const chorus_experts_desc &d, const Device &device, const Device &host) {
  const int64_t experts = d.n_experts, wide = d.gate_up->shape[1];
  const bool packed = d.weights_dtype == CHORUS_I4, quantised = packed || d.weights_dtype == CHORUS_I8;
  const auto elements = [&](int64_t columns) { return packed ? (columns + 1) / 2 : columns; };
  const auto check = [&](const chorus_tensor *t, const char *name, int64_t rows, int64_t columns) {
    const TensorRule rule = {name, {CHORUS_F32, CHORUS_BF16, CHORUS_F16, packed ? CHORUS_U8 : CHORUS_I8},
                             {experts, rows, elements(columns)}, false, true, quantised};
    check_weights(t, rule, device, host);
  };
  check(d.gate_up, "gate_up", wide, d.hidden);
  check(d.down, "down", d.hidden, d.intermediate);
  if (weights_dtype_of(*d.down) != d.weights_dtype) {
    fail(CHORUS_INVALID_ARGUMENT, "down: its dtype or packing is not that of gate_up; both must be the same");
  }
  if (quantised) {
    check_quant(*d.gate_up, "gate_up", "gate_up.quant->scales", wide, d.hidden, host);
    check_quant(*d.down, "down", "down.quant->scales", d.hidden, d.intermediate, host);
  }
  if (d.gate_up_bias != nullptr) {
    check_weights(d.gate_up_bias, {"gate_up_bias", {CHORUS_F32}, {experts, wide}}, device, host);
  }
  if (d.down_bias != nullptr) check_weights(d.down_bias, {"down_bias", {CHORUS_F32}, {experts, d.hidden}}, device, host);
}

PreparedKernel prepare(const std::shared_ptr<const Context> &context, const ExpertsSpec &spec, const char *device_name) {
  const DevicePtr device = find_device(context, device_name), host = find_device(context, "reference");
  chorus_experts_desc desc = spec.desc;
  const int64_t wide = desc.gate_up->shape[1];
  if (has_gate(desc.activation) && wide % 2 != 0) {
    fail(CHORUS_INVALID_ARGUMENT, "gate_up has {} rows; with a gate their number is even, gates and ups", wide);
  }
  desc.intermediate = has_gate(desc.activation) ? wide / 2 : wide;
  check_spec(desc, *device, *host);
  chorus_tensor map = CHORUS_TENSOR_INIT;
  const auto global = static_cast<int64_t>(spec.expert_map.size());
  if (global > 0) {
    map.data = const_cast<int32_t *>(spec.expert_map.data());
    map.size_bytes = spec.expert_map.size() * sizeof(int32_t);
    map.device_type = CHORUS_DEVICE_HOST;
    map.dtype_code = CHORUS_DTYPE_CODE_INT;
    map.dtype_bits = 32;
    map.dtype_lanes = 1;
    map.ndim = 1;
    map.shape = &global;
    desc.expert_map = &map;
  }
  return PreparedKernel::prepare(device, CHORUS_OP_EXPERTS_FFN, &desc);
}

}  // namespace

ExpertsSpec::ExpertsSpec(const chorus_tensor *gate_up, const chorus_tensor *down, int32_t k)
    : desc(CHORUS_EXPERTS_DESC_INIT) {
  for (const auto &[tensor, name] : {std::pair{gate_up, "gate_up"}, std::pair{down, "down"}}) {
    if (tensor == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{} is NULL; it is required", name);
    if (tensor->ndim != 3 || tensor->shape == nullptr) {
      fail(CHORUS_INVALID_ARGUMENT, "{} has {} dimensions; [experts, rows, columns] is needed", name, tensor->ndim);
    }
  }
  if (k < 1 || k > 64) fail(CHORUS_INVALID_ARGUMENT, "k is {}; 1 to 64 are allowed", k);
  const int64_t experts = gate_up->shape[0];
  if (experts < 1 || experts > 8192) fail(CHORUS_INVALID_ARGUMENT, "gate_up holds {} experts; 1 to 8192 are allowed", experts);
  for (const auto &[tensor, name] : {std::pair{gate_up, "gate_up"}, std::pair{down, "down"}}) {
    if (tensor->shape[1] < 1 || tensor->shape[2] < 1 || tensor->shape[1] > INT32_MAX || tensor->shape[2] > INT32_MAX) {
      fail(CHORUS_INVALID_ARGUMENT, "{} is [{}, {}, {}]; sizes of 1 to 2^31 - 1 are allowed", name, tensor->shape[0],
           tensor->shape[1], tensor->shape[2]);
    }
  }
  desc.n_experts = static_cast<int32_t>(experts);
  desc.k = k;
  desc.hidden = down->shape[1];
  desc.max_tokens = 1;
  desc.weights_dtype = weights_dtype_of(*gate_up);
  desc.x_dtype = desc.y_dtype = CHORUS_F32;
  desc.ids_dtype = CHORUS_I32;
  desc.gate_up = gate_up;
  desc.down = down;
}

void ExpertsSpec::set_shared(int32_t n_shared) {
  if (n_shared < 0 || n_shared >= desc.n_experts) {
    fail(CHORUS_INVALID_ARGUMENT, "n_shared is {}; 0 to {} are allowed: at least one of the {} experts is routed", n_shared,
         desc.n_experts - 1, desc.n_experts);
  }
  desc.n_shared = n_shared;
}

void ExpertsSpec::set_expert_map(const chorus_tensor &map) {
  if (map.ndim != 1 || map.device_type != CHORUS_DEVICE_HOST || dtype_of(map) != CHORUS_I32 || map.strides != nullptr ||
      map.shape == nullptr || map.shape[0] < 1 || map.shape[0] > 1 << 20 || map.data == nullptr ||
      map.size_bytes < static_cast<uint64_t>(map.shape[0]) * sizeof(int32_t)) {
    fail(CHORUS_INVALID_ARGUMENT, "expert_map must be a compact i32 vector of 1 to 2^20 entries in host memory");
  }
  const auto *entries = static_cast<const int32_t *>(map.data);
  for (int64_t i = 0; i < map.shape[0]; ++i) {
    if (entries[i] < -1 || entries[i] >= desc.n_experts) {
      fail(CHORUS_INVALID_ARGUMENT, "expert_map[{}] is {}; -1 to {} are allowed", i, entries[i], desc.n_experts - 1);
    }
  }
  expert_map.assign(entries, entries + map.shape[0]);
}

Experts::Experts(const std::shared_ptr<const Context> &context, const ExpertsSpec &spec, const char *device)
    : desc_(spec.desc), kernel_(prepare(context, spec, device)) {}

void Experts::check_tokens(int64_t tokens) const {
  if (tokens < 0 || tokens > desc_.max_tokens) {
    fail(CHORUS_INVALID_ARGUMENT, "x has {} rows; 0 to {} (the spec's max_tokens) are allowed", tokens, desc_.max_tokens);
  }
}

void Experts::run(const chorus_tensor *x, const chorus_tensor *ids, const chorus_tensor *weights, const chorus_tensor *y,
                  const chorus_tensor *status, const chorus_exec *exec) const {
  const Device &device = *kernel_.device();
  check_tensor(x, {"x", {desc_.x_dtype}, {kAnySize, desc_.hidden}}, device);
  const int64_t tokens = x->shape[0];
  check_tokens(tokens);
  check_tensor(ids, {"ids", {desc_.ids_dtype}, {tokens, desc_.k}}, device);
  check_tensor(weights, {"weights", {CHORUS_F32}, {tokens, desc_.k}}, device);
  check_tensor(y, {"y", {desc_.y_dtype}, {tokens, desc_.hidden}, true}, device);
  if (status != nullptr) check_tensor(status, {"status", {CHORUS_I32}, {tokens}, true}, device);
  for (const auto &[input, name] : {std::pair{x, "x"}, std::pair{ids, "ids"}, std::pair{weights, "weights"}}) {
    check_no_overlap(*y, "y", *input, name);
    if (status != nullptr) check_no_overlap(*status, "status", *input, name);
  }
  if (status != nullptr) check_no_overlap(*status, "status", *y, "y");
  const chorus_experts_args args = {CHORUS_END_OF(chorus_experts_args, status), tokens, x, ids, weights, y, status};
  kernel_.run(&args, exec);
}

uint64_t Experts::workspace_size(int64_t tokens) const {
  check_tokens(tokens);
  chorus_experts_args args = CHORUS_EXPERTS_ARGS_INIT;
  args.tokens = tokens;
  return kernel_.workspace_size(&args);
}

}  // namespace chorus::route
